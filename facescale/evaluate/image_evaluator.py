"""What all evaluators of images share: one pass of the network over them."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from facescale.data.images import Images
from facescale.evaluate.embedding import Embedded, Extraction, embed_set
from facescale.evaluate.figures import Result

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed


class ImageEvaluator(ABC):
    """Base of the evaluators that embed images.

    Attributes:
        size: side of the images that the network takes, in pixels; others are resized.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
    """

    size: int
    flip: bool
    batch_size: int

    @abstractmethod
    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> Result:
        """Embed the images and compute all figures.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.
        """

    def run(self, embed: "Embed") -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar; see `measure`."""
        return self.measure(embed).figures()

    def _embedded(
        self,
        embed: "Embed",
        images: Images,
        indices: Sequence[int],
        extraction: Extraction | None,
        *,
        flip: bool | None = None,
        sizes: Counter[str] | None = None,
    ) -> Embedded:
        """`embed_set` with the settings of this evaluator; ``flip`` in place of its own where given."""
        return embed_set(
            embed,
            images,
            indices,
            size=self.size,
            flip=self.flip if flip is None else flip,
            batch_size=self.batch_size,
            extraction=extraction,
            sizes=sizes,
        )

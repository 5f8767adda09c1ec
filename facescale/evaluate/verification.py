"""One-to-one verification: embed the images of a pair protocol, score the pairs, compute the figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.analyses import with_discard
from facescale.evaluate.embedding import Embedded, Extraction
from facescale.evaluate.image_evaluator import ImageEvaluator
from facescale.evaluate.metrics import (
    pair_accuracy,
    roc,
)
from facescale.evaluate.pair_intervals import accuracy_interval, points_of
from facescale.evaluate.people import people_of
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.scored import ScoredImages
from facescale.evaluate.verification_result import DEFAULT_RULE, VerificationResult

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Verification(ImageEvaluator):
    """An evaluator: `run` a network on a pair protocol.

    Attributes:
        name: of the protocol.
        pairs: the protocol.
        size: side of the images that the network takes, in pixels; others are resized.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
        fars: false-accept rates at which thresholds are computed.
        rule: how a fold takes its threshold from the others: a key of `PAIR_RULES`.
    """

    name: str
    pairs: Pairs = field(repr=False)
    size: int = 112
    flip: bool = True
    batch_size: int = 128
    fars: tuple[float, ...] = FARS
    rule: str = DEFAULT_RULE

    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> VerificationResult:
        """Embed every image of the protocol once and score its pairs.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.

        Raises:
            ValueError: an image cannot be read, embeddings are not finite, the network is in training mode.
        """
        pairs = self.pairs
        used, row = np.unique(np.concatenate([pairs.a, pairs.b]), return_inverse=True)
        sizes: Counter[str] = Counter()
        embedded = self._embedded(embed, pairs.images, used.tolist(), extraction, sizes=sizes)
        return verified(
            self.name,
            pairs,
            embedded.unit_ND,
            row,
            embedded,
            self.rule,
            flip=self.flip,
            size=self.size,
            fars=self.fars,
            sizes=sizes,
        )


def verified(
    name: str,
    pairs: Pairs,
    unit_UD: FloatArray,
    row_2N: IntArray,
    embedded: Embedded,
    rule: str,
    *,
    flip: bool,
    size: int,
    fars: Sequence[float] = FARS,
    sizes: Mapping[str, int] | None = None,
    norm_U: FloatArray | None = None,
) -> VerificationResult:
    """Score pairs and compute the figures.

    Args:
        name: of the protocol.
        pairs: the N pairs.
        unit_UD: features of what is compared, rows of length 1.
        row_2N: row of the first side of each pair, then of the second.
        embedded: the images that the features were made of.
        rule: a key of `PAIR_RULES`.
        flip: whether the mirrored view was added.
        size: side of the images that the network took, pixels.
        fars: false-accept rates at which thresholds are computed.
        sizes: number of images by "WIDTHxHEIGHT".
        norm_U: mean length of the embeddings of each row of ``unit_UD``; by default those of ``embedded``.
    """
    in_pair_order_2ND = unit_UD[row_2N.reshape(2, -1).T.ravel()].astype(np.float64)
    scores = np.einsum("nd,nd->n", in_pair_order_2ND[0::2], in_pair_order_2ND[1::2])
    curve = roc(scores, pairs.is_same)
    accuracy = pair_accuracy(in_pair_order_2ND, pairs.is_same, rule, fold_ids=pairs.fold)
    by_count = sorted((sizes or {}).items(), key=lambda item: -item[1])
    person_N, known_by = people_of(pairs)
    norm_U = embedded.norm_N if norm_U is None else norm_U
    scored = ScoredImages.of_list(pairs, person_N, scores, norm_U[row_2N])
    result = VerificationResult(
        name=name,
        pairs=pairs,
        scores=scores,
        accuracy=accuracy,
        rule=rule,
        curve=curve,
        points=points_of(scored, curve, fars),
        accuracy_interval=accuracy_interval(pairs, person_N, scores, accuracy, rule),
        people=known_by,
        mean_norm=float(embedded.norm_N.mean()),
        num_images=len(embedded.norm_N),
        flip=flip,
        size=size,
        scaled={text: count for text, count in by_count if text != f"{size}x{size}"},
        scored=scored,
    )
    return with_discard(result)

"""``facescale clean --shard``: one of several machines embeds its part of the images."""

from collections.abc import Sequence
from pathlib import Path

from facescale.clean.embedded import Progress, embed_part
from facescale.clean.run import DATA, Options, open_all
from facescale.data.images import ReaderImages
from facescale.data.readers.base import Reader
from facescale.jobs import Part


def embed_shard(
    data: Reader,
    model: str | Path,
    out: str | Path,
    part: Part,
    against: Sequence[str] = (),
    options: Options | None = None,
    progress: Progress | None = None,
) -> int:
    """Embed one part of the images of `clean`, which takes nearly all of its time, and keep the embeddings.

    Any number of machines that share the folder ``out`` may do parts at once, in any order; one that was
    lost is started again. `clean` with the same arguments then finds them, and computes what is missing.

    Args:
        data: as for `clean`, as all but ``part``.
        model: the same.
        out: the same.
        part: which images, of the data set and of each test set.
        against: the same.
        options: the same; thresholds have no effect.
        progress: the same.

    Returns:
        How many images can be read.

    Raises:
        ValueError: as `clean`; nothing is said of images that cannot be read, which `clean` reports.
    """
    tests, how = open_all(model, Path(out), against, options or Options(), progress)
    sources = [(DATA, ReaderImages(data)), *((test.name, test.images) for test in tests)]
    return sum(embed_part(images, how, name, part) for name, images in sources)

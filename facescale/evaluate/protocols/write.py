"""Sample pairs from a data set and write them as a protocol file."""

from pathlib import Path

from facescale.data import open_reader
from facescale.data.images import ReaderImages
from facescale.evaluate.protocols.draw import make_pairs, most_pairs
from facescale.evaluate.protocols.pair_bin import write_bin
from facescale.evaluate.protocols.pair_lists import write_csv
from facescale.evaluate.protocols.pairs import Pairs

USUAL_PAIRS = 6000  # as LFW has
_WRITERS = {".csv": write_csv, ".bin": write_bin}


def write_protocol(data: str, out: Path, num_pairs: int | None, num_folds: int, seed: int) -> int:
    """Sample pairs from ``data`` and write them to ``out``.

    Args:
        data: what `facescale.data.open_reader` takes.
        out: ``.csv`` (names the images) or ``.bin`` (contains them).
        num_pairs: number of pairs, half of them genuine; None: 6,000, or as many as the images allow.
        num_folds: number of folds.
        seed: random seed.

    Returns:
        The number of pairs.

    Raises:
        ValueError: an unknown suffix, a ``.csv`` from images that are not files below a folder, or too few
            images.
    """
    if out.suffix not in _WRITERS:
        raise ValueError(f"cannot write pairs to '{out}'; its suffix must be .csv or .bin")
    reader = open_reader(data)
    if out.suffix == ".csv" and not (Path(data) / reader.key(0)).is_file():
        raise ValueError(
            f"the images of '{data}' are not files below a folder, so a CSV cannot name them; write a .bin"
        )
    if num_pairs is None:
        num_pairs = most_pairs(reader.ids, num_folds, USUAL_PAIRS)
    sampled = make_pairs(reader.ids, num_pairs, num_folds, seed)
    _WRITERS[out.suffix](out, Pairs(data, ReaderImages(reader), *sampled))
    return num_pairs

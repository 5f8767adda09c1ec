"""Open a protocol from the text that names it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from facescale.data import open_reader
from facescale.data.images import ReaderImages
from facescale.data.spec import parse_options, split_options
from facescale.data.synthetic.faces import synthetic_pairs
from facescale.evaluate.fold_rules import PAIR_RULES
from facescale.evaluate.protocols.cfp import read_cfp
from facescale.evaluate.protocols.data_set import DataSet, EveryPair, Identification
from facescale.evaluate.protocols.ijb_protocol import Ijb
from facescale.evaluate.protocols.megaface import MegaFace
from facescale.evaluate.protocols.open_sets import open_ijb, open_megaface, open_tinyface, open_ytf
from facescale.evaluate.protocols.options import Opening, chosen, opener
from facescale.evaluate.protocols.pair_bin import read_bin
from facescale.evaluate.protocols.pair_lists import read_csv
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.protocols.text_lists import read_txt
from facescale.evaluate.protocols.tinyface import TinyFace
from facescale.evaluate.protocols.ytf import VideoVerification
from facescale.evaluate.verification import Verification
from facescale.guard.reading import reading

_DRAWN = "synthetic:"
_OPTIONS = {"pairs": int, "seed": int, "folds": int, "nuisance": float}
Opened = Verification | DataSet | Ijb | MegaFace | VideoVerification | TinyFace

# Lists as they are released, which a folder is searched for.
LISTS = ("pairs.txt", "pairs_CALFW.txt", "pairs_CPLFW.txt", "pair_SLLFW.txt", "agedb_30.bin")


def open_protocol(
    path: str,
    size: int = 112,
    flip: bool = True,
    batch_size: int = 128,
    name: str = "",
    limit: int | None = None,
) -> Opened:
    """Open a protocol: ``KIND:PATH`` of a kind in ``KINDS``, or pairs (see ``open_verification``).

    Args:
        path: as above; a path that exists is taken as it is. Options follow as ``?key=value&key=value``.
        size: side of the images that the network takes, in pixels.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
        name: what its results are called; by default the name of its file, folder or kind.
        limit: measure on a fixed part: so many pairs, or images of whole people.

    Raises:
        ValueError: the path does not exist, is not a protocol, or is damaged.
    """
    kind, _, rest = path.partition(":")
    open_kind = KINDS.get(kind)
    with reading(path, "the protocol", "repair it, or get a complete copy of it"):
        if open_kind is None or os.path.exists(path):
            return open_verification(path, size, flip, batch_size, name=name, limit=limit)
        return open_kind(rest, size, flip, batch_size, name=name, limit=limit)


@opener
def open_verification(path: str, how: Opening) -> Verification:
    """Verification of pairs: LFW folder or list, CSV, insightface .bin, ``synthetic:pairs=2000``.

    ``path`` is a folder with LFW's pairs.txt and images, such a .txt, a .csv of pairs, an insightface .bin,
    or ``synthetic:pairs=2000,seed=0,folds=10,nuisance=1``. Options: ``root=FOLDER`` for lists of images that
    lie elsewhere (as the file system spells it, nothing is decoded), ``rule=`` one of
    `facescale.evaluate.fold_rules.PAIR_RULES`.

    Raises:
        ValueError: nothing there, not a protocol of pairs, or damaged.
    """
    place, options = split_options(path, ("root", "rule"))
    rule = chosen(options, "rule", list(PAIR_RULES))
    if place.startswith(_DRAWN) and not os.path.exists(place):
        pairs, default_name = _open_synthetic(place, how.size), "synthetic"
    else:
        pairs, default_name = _open_files(Path(place), options.get("root"), LISTS), Path(place).stem
    return Verification(how.name or default_name, pairs.limited(how.limit), *how.images, rule=rule)


@opener
def open_identification(path: str, how: Opening) -> Identification:
    """Open-set identification on any data set: ``identification:DATA``.

    Raises:
        ValueError: no such data set.
    """
    return Identification(how.name or "identification", path, open_reader(path), *how.images, how.limit)


@opener
def open_all_pairs(path: str, how: Opening) -> EveryPair:
    """Verification over every pair of any data set, as MFR does it: ``all_pairs:DATA``.

    Raises:
        ValueError: no such data set.
    """
    return EveryPair(how.name or "all_pairs", path, open_reader(path), *how.images, how.limit)


def _of_pairs(kind: str, what: str, read: Callable[[Path, str | None], Pairs]) -> Callable[..., Verification]:
    """An opener of a protocol of pairs that is released in one form; options as `open_verification`."""

    def open_pairs(path: str, how: Opening) -> Verification:
        place, options = split_options(path, ("root", "rule"))
        rule = chosen(options, "rule", list(PAIR_RULES))
        pairs = read(Path(place), options.get("root")).limited(how.limit)
        return Verification(how.name or kind, pairs, *how.images, rule=rule)

    open_pairs.__doc__ = f"{what}: ``{kind}:PATH``."
    return opener(open_pairs)


def _listed(*names: str) -> Callable[[Path, str | None], Pairs]:
    return lambda path, root: _open_files(path, root, names)


def _cfp(split: str) -> Callable[[Path, str | None], Pairs]:
    return lambda path, root: read_cfp(path, split, None if root is None else Path(root))


KINDS: dict[str, Callable[..., Opened]] = {
    "verification": open_verification,
    "lfw": _of_pairs("lfw", "LFW, from the folder with pairs.txt", _listed("pairs.txt", "lfw.bin")),
    "calfw": _of_pairs(
        "calfw",
        "Cross-age LFW, from the folder with pairs_CALFW.txt",
        _listed("pairs_CALFW.txt", "calfw.bin"),
    ),
    "cplfw": _of_pairs(
        "cplfw",
        "Cross-pose LFW, from the folder with pairs_CPLFW.txt",
        _listed("pairs_CPLFW.txt", "cplfw.bin"),
    ),
    "sllfw": _of_pairs(
        "sllfw",
        "Similar-looking LFW, from LFW's images and pair_SLLFW.txt",
        _listed("pair_SLLFW.txt", "sllfw.bin"),
    ),
    "agedb": _of_pairs(
        "agedb",
        "AgeDB-30, from agedb_30.bin or a list of lines A.jpg B.jpg 1",
        _listed("agedb_30.bin", "agedb_30.txt", "pairs.txt"),
    ),
    "cfp_ff": _of_pairs(
        "cfp_ff", "CFP frontal-frontal, from the folder with Protocol/ and Data/", _cfp("FF")
    ),
    "cfp_fp": _of_pairs(
        "cfp_fp", "CFP frontal-profile, from the folder with Protocol/ and Data/", _cfp("FP")
    ),
    "ytf": open_ytf,
    "identification": open_identification,
    "all_pairs": open_all_pairs,
    "ijb": open_ijb,
    "megaface": open_megaface,
    "tinyface": open_tinyface,
}


def _open_files(path: Path, root: str | None, lists: Sequence[str]) -> Pairs:
    images = None if root is None else Path(root)
    if os.path.isdir(path):
        found = [path / name for name in lists if (path / name).is_file()]
        if not found:
            raise ValueError(
                f"'{path}' has no {', '.join(lists)}; sample pairs of its people with "
                f"'facescale pairs {path} --out pairs.bin', then evaluate on pairs.bin"
            )
        if len(found) > 1 and found[0].name != lists[0]:
            names = ", ".join(place.name for place in found)
            raise ValueError(f"'{path}' has several lists of pairs ({names}); name the file, not the folder")
        path = found[0]
    if not os.path.isfile(path):
        raise ValueError(
            f"'{path}' does not exist; name a folder with pairs.txt, a .csv or .bin of pairs "
            "(lists with ?root=FOLDER if need be), or synthetic:pairs=2000"
        )
    readers = {".txt": read_txt, ".csv": read_csv}
    suffix = path.suffix.lower()
    if suffix in readers:
        return readers[suffix](path, images)
    if suffix != ".bin" or images:
        raise ValueError(
            f"'{path}'{f' with ?root={root}' if root else ''} is not a pair protocol; give a .txt in LFW's "
            "format or a .csv (either with ?root=FOLDER if need be), or a .bin"
        )
    return read_bin(path)


def _open_synthetic(spec: str, size: int) -> Pairs:
    example = f"{_DRAWN}pairs=2000,seed=0,folds=10,nuisance=1"
    values = parse_options(spec.removeprefix(_DRAWN), _OPTIONS, spec=spec, example=example)
    num_pairs, num_folds = values.pop("pairs", 2000), values.pop("folds", 10)
    drawn = synthetic_pairs(num_pairs, num_folds=num_folds, size=size, **values)
    return Pairs(
        spec, ReaderImages(drawn.reader, keep=True), drawn.first, drawn.second, drawn.is_same, drawn.fold
    )

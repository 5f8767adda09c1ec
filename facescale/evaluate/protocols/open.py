"""Open a protocol from the text that names it."""

import os
from collections.abc import Callable
from pathlib import Path

from facescale.data import open_reader
from facescale.data.images import ReaderImages
from facescale.data.spec import parse_options, split_options
from facescale.data.synthetic.faces import synthetic_pairs
from facescale.evaluate.fold_rules import PAIR_RULES
from facescale.evaluate.protocols.data_set import DataSet, EveryPair, Identification
from facescale.evaluate.protocols.ijb_lists import Ijb, read_ijb
from facescale.evaluate.protocols.megaface import NOISES, RULES, MegaFace, read_megaface
from facescale.evaluate.protocols.options import chosen
from facescale.evaluate.protocols.pair_bin import read_bin
from facescale.evaluate.protocols.pair_lists import read_csv, read_lfw
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.verification import Verification
from facescale.prepare.align import align

_DRAWN = "synthetic:"
_OPTIONS = {"pairs": int, "seed": int, "folds": int, "nuisance": float}
Opened = Verification | DataSet | Ijb | MegaFace


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
    opener = KINDS.get(kind)
    if opener is None or os.path.exists(path):
        return open_verification(path, size, flip, batch_size, name=name, limit=limit)
    return opener(rest, size, flip, batch_size, name=name, limit=limit)


def open_verification(
    path: str,
    size: int = 112,
    flip: bool = True,
    batch_size: int = 128,
    name: str = "",
    limit: int | None = None,
) -> Verification:
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
        pairs, default_name = _open_synthetic(place, size), "synthetic"
    else:
        pairs, default_name = _open_files(Path(place), options.get("root")), Path(place).stem
    return Verification(name or default_name, pairs.limited(limit), size, flip, batch_size, rule=rule)


def open_identification(
    path: str,
    size: int = 112,
    flip: bool = True,
    batch_size: int = 128,
    name: str = "",
    limit: int | None = None,
) -> Identification:
    """Open-set identification on any data set: ``identification:DATA``.

    Raises:
        ValueError: no such data set.
    """
    return Identification(name or "identification", path, open_reader(path), size, flip, batch_size, limit)


def open_all_pairs(
    path: str,
    size: int = 112,
    flip: bool = True,
    batch_size: int = 128,
    name: str = "",
    limit: int | None = None,
) -> EveryPair:
    """Verification over every pair of any data set, as MFR does it: ``all_pairs:DATA``.

    Raises:
        ValueError: no such data set.
    """
    return EveryPair(name or "all_pairs", path, open_reader(path), size, flip, batch_size, limit)


def open_ijb(
    path: str,
    size: int = 112,
    flip: bool = True,
    batch_size: int = 128,
    name: str = "",
    limit: int | None = None,
) -> Ijb:
    """IJB-B or IJB-C, 1:1 and 1:N, from the folder with meta/ and loose_crop/: ``ijb:FOLDER``.

    Raises:
        ValueError: a list is missing or damaged.
    """
    return Ijb(name or Path(path).name, read_ijb(Path(path)).limited(limit), align, size, flip, batch_size)


def open_megaface(
    path: str,
    size: int = 112,
    flip: bool = True,
    batch_size: int = 128,
    name: str = "",
    limit: int | None = None,
) -> MegaFace:
    """MegaFace challenge 1, rank 1 and TAR among a million distractors: ``megaface:FOLDER``.

    Options: ``features=FOLDER`` reads the devkit's feature files in place of images, ``write=FOLDER`` writes
    them; ``rule=devkit`` or ``ffc``, ``noise=centre`` or ``remove``.

    Raises:
        ValueError: a list is missing or damaged, features both read and written, an unknown option.
    """
    folder, options = split_options(path, ("features", "write", "rule", "noise"))
    if {"features", "write"} <= options.keys():
        raise ValueError(f"'{path}' reads features and writes them; give one of features= and write=")
    places = {key: Path(options[key]) for key in ("features", "write") if key in options}
    return MegaFace(
        name or "megaface",
        read_megaface(Path(folder)).limited(limit),
        size,
        flip,
        batch_size,
        chosen(options, "rule", RULES),
        chosen(options, "noise", NOISES),
        **places,
    )


KINDS: dict[str, Callable[..., Opened]] = {
    "verification": open_verification,
    "identification": open_identification,
    "all_pairs": open_all_pairs,
    "ijb": open_ijb,
    "megaface": open_megaface,
}


def _open_files(path: Path, root: str | None) -> Pairs:
    images = None if root is None else Path(root)
    if os.path.isdir(path):
        if not (path / "pairs.txt").is_file():
            raise ValueError(
                f"'{path}' has no pairs.txt; sample pairs from a folder of identities with "
                f"'facescale pairs {path}', then evaluate on the CSV that it writes"
            )
        return read_lfw(path / "pairs.txt", images)
    if not os.path.isfile(path):
        raise ValueError(
            f"'{path}' does not exist; name a folder with pairs.txt, a .csv or .bin of pairs "
            "(lists with ?root=FOLDER if need be), or synthetic:pairs=2000"
        )
    readers = {".txt": read_lfw, ".csv": read_csv}
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

"""Open a verification protocol from the text that names it."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from facescale.data.synthetic.faces import synthetic_pairs
from facescale.evaluate.protocols.images import ReaderImages
from facescale.evaluate.protocols.pair_bin import read_bin
from facescale.evaluate.protocols.pair_lists import read_csv, read_lfw
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.verification import Verification
from facescale.registry import nearest


def open_protocol(spec: str, size: int = 112, flip: bool = True, batch_size: int = 128) -> Verification:
    """Open a verification protocol from ``NAME=PATH`` or PATH.

    PATH is a folder with LFW's pairs.txt and images, such a .txt, a .csv of pairs, an insightface .bin, or
    ``synthetic:pairs=2000,seed=0,folds=10,nuisance=1``. For lists of images that lie elsewhere:
    PATH?root=FOLDER.

    Args:
        spec: as above; without NAME, the name is that of the file or folder.
        size: side of the images that the network takes, in pixels.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.

    Raises:
        ValueError: the path does not exist, is not a protocol, or is damaged.
    """
    named = re.fullmatch(r"([\w.-]+)=(.+)", spec)
    name, path = named.groups() if named else ("", spec)
    if path.startswith("synthetic:"):
        return Verification(name or "synthetic", _open_synthetic(path, size), size, flip, batch_size)
    pairs = _open_files(path)
    return Verification(name or Path(path.partition("?")[0]).stem, pairs, size, flip, batch_size)


def _open_files(spec: str) -> Pairs:
    text, _, query = spec.partition("?")
    options = dict(parse_qsl(query))
    if set(options) - {"root"} or (query and not options):
        raise ValueError(f"'{spec}': unknown option '{query}'; the only option is root: PATH?root=FOLDER")
    root = Path(options["root"]) if "root" in options else None
    path = Path(text)
    if path.is_dir():
        if not (path / "pairs.txt").is_file():
            raise ValueError(
                f"'{path}' has no pairs.txt; sample pairs from a folder of identities with "
                f"'facescale pairs {path}', then evaluate on the CSV that it writes"
            )
        return read_lfw(path / "pairs.txt", root)
    if not path.is_file():
        raise ValueError(
            f"'{path}' does not exist; name a folder with pairs.txt, a .csv or .bin of pairs, "
            "or synthetic:pairs=2000"
        )
    readers = {".txt": read_lfw, ".csv": read_csv}
    if path.suffix in readers:
        return readers[path.suffix](path, root)
    if path.suffix != ".bin" or root:
        raise ValueError(
            f"'{spec}' is not a pair protocol; use a .txt in LFW's format or a .csv, both with ?root=FOLDER "
            "if needed, or a .bin"
        )
    return read_bin(path)


def _open_synthetic(spec: str, size: int) -> Pairs:
    kinds = {"pairs": int, "seed": int, "folds": int, "nuisance": float}
    values: dict[str, Any] = {"pairs": 2000}
    for item in spec.partition(":")[2].split(","):
        key, _, text = item.partition("=")
        try:
            values[key] = kinds[key](text)
        except (KeyError, ValueError):
            raise ValueError(
                f"'{spec}': cannot read '{item}'{nearest(key, kinds)}; write synthetic:pairs=2000 "
                "and optionally seed=0, folds=10, nuisance=1, comma-separated"
            ) from None
    num_pairs, num_folds = values.pop("pairs"), values.pop("folds", 10)
    drawn = synthetic_pairs(num_pairs, num_folds=num_folds, size=size, **values)
    return Pairs(
        spec, ReaderImages(drawn.reader, keep=True), drawn.first, drawn.second, drawn.is_same, drawn.fold
    )

"""Where every image of a set of tar shards lies: found once from the headers, then kept in a file."""

import json
import os
import tempfile
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.labelled import whole_label
from facescale.data.readers.shard_files import ShardFiles
from facescale.data.readers.tar_headers import Member, tar_members
from facescale.data.readers.texts import Texts

IMAGES = ("jpg", "jpeg", "png", "bmp", "webp")
_LABEL_BYTES = 1 << 16
_LABEL_KEYS = ("label", "cls", "identity", "id")
_UNKNOWN = -1

# N images


class ShardIndex(NamedTuple):
    """Place of every image.

    Attributes:
        shard_N: int64, number of the file.
        offset_N: int64, first byte.
        size_N: int64, bytes.
        label_N: int64; -1 where the archives have no labels, but a folder for each identity.
        keys: name of each sample, without the suffix.
    """

    shard_N: IntArray
    offset_N: IntArray
    size_N: IntArray
    label_N: IntArray
    keys: Texts


def shard_index(files: ShardFiles) -> ShardIndex:
    """The index of some shards, from the file that an earlier call left, or from their headers.

    It is kept beside local shards where one can write there, else in the user's cache.

    Raises:
        ValueError: a shard is damaged, or an image has no label.
    """
    state = json.dumps([files.names, files.sizes, files.stamps])
    places = list(_places(files))
    for place in places:
        if (found := _loaded(place, state, files)) is not None:
            return found
    built = build_index(files)
    for place in places:
        if _saved(place, state, built):
            break
    return built


def _places(files: ShardFiles) -> Iterator[Path]:
    """Files that may hold the index, the preferred one first."""
    name = f".facescale-{blake2b(json.dumps(files.names).encode(), digest_size=8).hexdigest()}.npz"
    if "://" not in files.names[0]:
        yield Path(files.names[0]).parent / name
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(cache) / "facescale" / name


def _loaded(place: Path, state: str, files: ShardFiles) -> ShardIndex | None:
    """The index of a file; None if there is none, it is of other shards or damaged."""
    try:
        with ZipFile(place) as parts:  # ours are not compressed; others could unpack to any size
            if any(part.compress_type != ZIP_STORED for part in parts.infolist()):
                return None
        with np.load(place, allow_pickle=False) as file:
            if str(file["state"]) != state:
                return None
            columns = [file[name].astype(np.int64) for name in ("shard", "offset", "size", "label")]
            block, ends = file["keys"].tobytes(), file["ends"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    if not len(ends) or ends[-1] != len(block) or (np.diff(ends, prepend=0) < 0).any():
        return None
    index = ShardIndex(columns[0], columns[1], columns[2], columns[3], Texts.of_block(block, ends))
    return index if _fits(index, files) else None


def _fits(index: ShardIndex, files: ShardFiles) -> bool:
    """Whether every image lies within its file."""
    if len({len(column) for column in index}) > 1 or not len(index.keys):
        return False
    if index.shard_N.min() < 0 or index.shard_N.max() >= len(files.sizes) or index.offset_N.min() < 0:
        return False
    return bool(
        (index.size_N >= 0).all()
        and (index.offset_N + index.size_N <= np.array(files.sizes)[index.shard_N]).all()
    )


def _saved(place: Path, state: str, index: ShardIndex) -> bool:
    block, ends = index.keys.block
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=".facescale-", suffix=".npz")
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                state=np.array(state),
                shard=index.shard_N,
                offset=index.offset_N,
                size=index.size_N,
                label=index.label_N,
                keys=np.frombuffer(block, np.uint8),
                ends=ends,
            )
        os.replace(temporary, place)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        return False
    return True


def build_index(files: ShardFiles) -> ShardIndex:
    """The index from the headers of all shards.

    Raises:
        ValueError: a shard is damaged or holds no image, or a label is wrong.
    """
    rows, keys = array("q"), Texts()
    for number, (name, total) in enumerate(zip(files.names, files.sizes, strict=True)):
        for key, image, label in _samples(files, number, name, total):
            rows.extend((number, image.offset, image.size, label))
            keys.add([key])
    if not rows:
        raise ValueError(f"'{files.names[0]}' holds no image ({', '.join(IMAGES)}); give shards of images")
    shard_N, offset_N, size_N, label_N = np.array(rows, np.int64).reshape(-1, 4).T.copy()
    return ShardIndex(shard_N, offset_N, size_N, label_N, keys)


def _samples(files: ShardFiles, number: int, name: str, total: int) -> Iterator[tuple[str, Member, int]]:
    """(key, image, label) of each sample: successive files whose names are alike up to the first dot."""
    key, image, label = "", None, _UNKNOWN
    for member in tar_members(lambda at, size: files.read(number, at, size), total, name):
        folder, slash, file_name = member.name.rpartition("/")
        stem, _, suffix = file_name.partition(".")
        suffix = suffix.lower()
        if f"{folder}{slash}{stem}" != key:
            if image is not None:
                yield key, image, label
            key, image, label = f"{folder}{slash}{stem}", None, _UNKNOWN
        if suffix in IMAGES:
            image = member
        elif suffix in ("cls", "json") and member.size <= _LABEL_BYTES:
            label = _label(
                files.read(number, member.offset, member.size), suffix, f"'{member.name}' of '{name}'"
            )
    if image is not None:
        yield key, image, label


def _label(data: bytes, suffix: str, where: str) -> int:
    text = data.decode("utf-8", "replace").strip()
    if suffix == "json":
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"{where} is no JSON; write the label as a number into a .cls file") from None
        named = [values[key] for key in _LABEL_KEYS if key in values] if isinstance(values, dict) else []
        if not named:
            return _UNKNOWN
        text = str(named[0])
    return whole_label(text, where)

"""Where every image of a set of tar shards lies: found once from the headers, then kept in a file."""

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.labelled import numbered, whole_label
from facescale.data.readers.saved_index import compact, index_places, load_index, save_index
from facescale.data.readers.shard_files import ShardFiles
from facescale.data.readers.tar_headers import Member, tar_members
from facescale.data.readers.texts import Texts

IMAGES = ("jpg", "jpeg", "png", "bmp", "webp")
_LABEL_BYTES = 1 << 16
_LABEL_KEYS = ("label", "cls", "identity", "id")
_UNKNOWN = -1

# N images


class ShardIndex(NamedTuple):
    """Place and identity of every image.

    Attributes:
        shard_N: number of the file.
        offset_N: first byte.
        size_N: bytes.
        id_N: int64, identity.
        labels: int64, label of each identity; none where the archives have a folder for each instead.
        folders: those.
        keys: name of each sample, without the suffix.
    """

    shard_N: IntArray
    offset_N: IntArray
    size_N: IntArray
    id_N: IntArray
    labels: IntArray
    folders: Texts
    keys: Texts


def shard_index(files: ShardFiles) -> ShardIndex:
    """The index of some shards, from the file that an earlier call left, or from their headers.

    It is kept beside local shards where one can write there, else in the user's cache.

    Raises:
        ValueError: a shard is damaged, or an image has no label.
    """
    state = state_of_files(files)
    places = index_places(files.names)
    if (found := _loaded(places, state, files)) is not None:
        return found
    built = build_index(files)
    keys, ends = built.keys.block
    folders, folder_ends = built.folders.block
    columns = {
        "shard": compact(built.shard_N),
        "offset": built.offset_N,
        "size": compact(built.size_N),
        "id": built.id_N,
        "label": built.labels,
        "keys": keys,
        "ends": compact(ends),
        "folders": folders,
        "folder_ends": compact(folder_ends),
    }
    save_index(places, state, columns)
    return built


def state_of_files(files: ShardFiles) -> str:
    """What changes when a shard does."""
    return json.dumps([files.names, files.sizes, files.stamps])


def _loaded(places: Sequence[Path], state: str, files: ShardFiles) -> ShardIndex | None:
    """The index of a file; None if there is none, it is of other shards or damaged."""
    largest, any_number = max(files.sizes) + 1, 1 << 63
    limits = {"shard": len(files.sizes), "offset": largest, "size": largest}
    limits |= dict.fromkeys(("id", "label", "ends", "folder_ends"), any_number)
    column = load_index(places, state, limits)
    if column is None:
        return None
    keys = Texts.of_block(column["keys"], column["ends"])
    folders = Texts.of_block(column["folders"], column["folder_ends"])
    shard_N, offset_N, size_N, id_N = (column[name] for name in ("shard", "offset", "size", "id"))
    counts = {len(one) for one in (shard_N, offset_N, size_N, id_N)}
    num_ids = max(len(column["label"]), len(folders))
    if counts != {len(keys)} or not len(keys) or id_N.max() >= num_ids:
        return None
    return ShardIndex(shard_N, offset_N, size_N, id_N, column["label"], folders, keys)


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
    labels, id_N, folders = _identities(files, keys, label_N)
    return ShardIndex(shard_N, offset_N, size_N, id_N, labels, folders, keys)


def _identities(files: ShardFiles, keys: Texts, label_N: IntArray) -> tuple[IntArray, IntArray, Texts]:
    """Labels, identities, and folders where those name the identities."""
    unlabelled = int((label_N < 0).sum())
    if not unlabelled:
        return *numbered(label_N), Texts()
    if unlabelled < len(label_N):
        raise ValueError(
            f"{unlabelled:,} of {len(label_N):,} images of '{files.names[0]}' and its like have no label,"
            f" such as '{keys[int(np.argmin(label_N))]}'; add a file NAME.cls with a number for each"
        )
    folders = [keys[i].rpartition("/")[0] for i in range(len(keys))]
    if not all(folders):
        raise ValueError(
            f"the images of '{files.names[0]}' have neither labels nor folders, such as"
            f" '{keys[folders.index('')]}'; add a file NAME.cls with a number for each"
        )
    names = sorted(set(folders))
    numbers = {name: number for number, name in enumerate(names)}
    id_N = np.fromiter((numbers[folder] for folder in folders), np.int64, len(folders))
    return np.empty(0, np.int64), id_N, Texts(names)


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
            raise ValueError(f"{where} is not JSON; write the label as a number into a .cls file") from None
        named = [values[key] for key in _LABEL_KEYS if key in values] if isinstance(values, dict) else []
        if not named:
            return _UNKNOWN
        text = str(named[0])
    return whole_label(text, where)

"""Test sets whose people must not be in the training set: any protocol, or any data set."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray
from facescale.data import open_reader
from facescale.data.images import Images, ReaderImages
from facescale.data.readers.base import identity_names
from facescale.data.spec import split_name
from facescale.evaluate.people import BY_FOLDER, people_of
from facescale.evaluate.protocols.aligned import AlignedImages
from facescale.evaluate.protocols.data_set import DataSet
from facescale.evaluate.protocols.file_images import FileImages
from facescale.evaluate.protocols.ijb_protocol import IMAGES, Ijb
from facescale.evaluate.protocols.megaface import MegaFace
from facescale.evaluate.protocols.open import KINDS, LISTS, Opened, open_protocol
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.protocols.tinyface import TinyFace
from facescale.evaluate.protocols.ytf import VideoVerification

_SUFFIXES = (".bin", ".csv", ".txt")


@dataclass(frozen=True)
class TestSet:
    """The faces of a test set.

    Attributes:
        name: what the user calls it, or its path.
        images: N faces.
        person_N: who is on each, numbered from 0; images of one number show one person.
        names: of the people; empty where the set knows numbers only.
    """

    name: str
    images: Images
    person_N: IntArray
    names: tuple[str, ...] = ()


def open_test_set(text: str, size: int) -> TestSet:
    """Open ``NAME=SPEC`` or ``SPEC``: a protocol as ``evaluate --on`` takes it, or a data set.

    Args:
        text: as above.
        size: side of the faces that the network takes, pixels.

    Raises:
        ValueError: neither a protocol nor a data set, or damaged.
    """
    name, spec = split_name(text)
    if _is_protocol(spec):
        return _of_protocol(name or spec, open_protocol(spec, size))
    reader = open_reader(spec)
    return TestSet(name or spec, ReaderImages(reader), reader.ids, tuple(identity_names(reader)))


def _is_protocol(spec: str) -> bool:
    if os.path.isdir(spec):
        return any((Path(spec) / name).is_file() for name in LISTS)
    path = spec.partition("?")[0]
    if spec.partition(":")[0] in KINDS and not os.path.exists(spec):
        return True
    return path.lower().endswith(_SUFFIXES) or path.startswith("synthetic:pairs=")


def _of_protocol(name: str, protocol: Opened) -> TestSet:
    if isinstance(protocol, DataSet):
        reader = protocol.reader
        return TestSet(name, ReaderImages(reader), reader.ids, tuple(identity_names(reader)))
    if isinstance(protocol, Ijb):
        lists = protocol.lists
        images = AlignedImages(
            lists.folder / IMAGES, lists.files, lists.landmarks, protocol.align, protocol.size
        )
        return TestSet(name, images, _numbered(lists.templates))
    if isinstance(protocol, TinyFace):
        files = protocol.images
        faces = FileImages(files.folder, files.files, name)
        distractors = np.flatnonzero(files.ids < 0)  # each is somebody else
        person_N = files.ids.copy()
        person_N[distractors] = files.ids.max(initial=0) + 1 + np.arange(len(distractors))
        return TestSet(name, faces, _numbered(person_N))
    if isinstance(protocol, MegaFace):
        return _of_megaface(name, protocol)
    pairs = protocol.videos.pairs if isinstance(protocol, VideoVerification) else protocol.pairs
    return _of_pairs(name, pairs)


def _of_megaface(name: str, protocol: MegaFace) -> TestSet:
    """The probes: distractors are a million strangers without names."""
    lists = protocol.lists
    root = lists.folder / "facescrub_images"
    images = FileImages(root if root.is_dir() else lists.folder, lists.probes, name)
    names = np.empty(int(lists.people.max()) + 1, object)
    for path, person in zip(lists.probes, lists.people.tolist(), strict=True):
        names[person] = path.split("/")[-2]
    return TestSet(name, images, lists.people, tuple(names.tolist()))


def _of_pairs(name: str, pairs: Pairs) -> TestSet:
    person_N, known = people_of(pairs)
    person_N = _numbered(person_N)
    if known != BY_FOLDER:
        return TestSet(name, pairs.images, person_N)
    first = np.unique(person_N, return_index=True)[1]
    folders = (pairs.images.key(int(index)).rpartition("/")[0] for index in first)
    return TestSet(name, pairs.images, person_N, tuple(folder.rpartition("/")[2] for folder in folders))


def _numbered(person_N: IntArray) -> IntArray:
    return np.unique(person_N, return_inverse=True)[1].astype(np.int64)

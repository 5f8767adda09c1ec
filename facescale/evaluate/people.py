"""Who is on the images of a pair protocol, as far as the protocol tells."""

import numpy as np

from facescale.arrays import IntArray
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.protocols.subset import linked

BY_FOLDER = "people are told apart by their folders"
BY_PAIRS = "people are told apart by the genuine pairs alone, so intervals may be too narrow"


def people_of(pairs: Pairs) -> tuple[IntArray, str]:
    """Number of the person on every image, and how it is known.

    Where all genuine pairs lie in one folder each and no impostor pair does, a folder is a person. Otherwise
    images that genuine pairs connect are of one person, and all others of different people.
    """
    folders = [pairs.images.key(index).rpartition("/")[0] for index in range(len(pairs.images))]
    _, person = np.unique(np.array(folders, dtype=object).astype(str), return_inverse=True)
    if np.array_equal(person[pairs.a] == person[pairs.b], pairs.is_same):
        return person.astype(np.int64), BY_FOLDER
    return linked(len(pairs.images), pairs.a[pairs.is_same], pairs.b[pairs.is_same]), BY_PAIRS

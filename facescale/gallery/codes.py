"""Short codes of templates: a product quantiser of 4 bits for every 4 numbers, scanned by faiss.

Jegou et al., "Product quantization for nearest neighbor search", PAMI 2011; the scan is that of Andre et al.,
"Cache locality is not enough: high-performance nearest neighbor search with product quantization fast scan",
VLDB 2015. A code of 512 numbers has 64 bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray

# P people, d embedding size, D d rounded up to whole parts, M parts, Q queries, S shortlisted

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

PART = 4  # numbers that share 4 bits; by parts of 8 one in 100 faces among a million loses its nearest
_CENTROIDS = 16
_EVEN = 2 * PART  # two parts fill a byte
_TRAIN = 65_536  # templates; more change no figure
_LEAST = 64 * _CENTROIDS


def require_extra() -> Any:
    """The library that scans the codes.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise ValueError(
            "an index needs faiss; install it with: pip install 'facescale[index]', or search exactly with "
            "--no-index"
        ) from None
    return faiss


def num_parts(embedding_size: int) -> int:
    """M, the parts that an embedding is cut into; zeros fill the last ones."""
    return 2 * -(-embedding_size // _EVEN)


def train(sample_ND: Floats) -> Floats:
    """Centroids (M, 16, 4) of the parts, by k-means from a fixed seed."""
    faiss = require_extra()
    sample_ND = np.resize(sample_ND, (max(len(sample_ND), _LEAST), sample_ND.shape[1]))
    quantiser = _quantiser(sample_ND.shape[1])
    quantiser.train(_filled(sample_ND))
    found: Floats = faiss.vector_to_array(quantiser.centroids).reshape(quantiser.M, _CENTROIDS, PART)
    return found


def sample_of(num_people: int) -> IntArray:
    """Places of the templates to train on, in order; a fixed draw."""
    if num_people <= _TRAIN:
        return np.arange(num_people)
    return np.sort(np.random.default_rng(0).choice(num_people, _TRAIN, replace=False))


def encode(x_PD: Floats, centroids: Floats) -> Codes:
    """Codes (P, M / 2) of templates."""
    quantiser = _quantiser(x_PD.shape[1])
    require_extra().copy_array_to_vector(np.ascontiguousarray(centroids).reshape(-1), quantiser.centroids)
    found: Codes = quantiser.compute_codes(_filled(x_PD))
    return found


class Scan:
    """The codes of a gallery in memory, M / 2 bytes a person.

    Args:
        codes: (P, M / 2).
        centroids: (M, 16, 4).
    """

    def __init__(self, codes: Codes, centroids: Floats) -> None:
        faiss = require_extra()
        parts = len(centroids)
        flat = faiss.IndexPQ(parts * PART, parts, 4, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(np.ascontiguousarray(centroids).reshape(-1), flat.pq.centroids)
        faiss.copy_array_to_vector(np.ascontiguousarray(codes).reshape(-1), flat.codes)
        flat.is_trained, flat.ntotal = True, len(codes)
        self._index = faiss.IndexPQFastScan(flat)

    def shortlist(self, query_QD: Floats, size: int) -> IntArray:
        """Places (Q, S) of the people whose codes are most like each query; at most ``size``."""
        size = min(size, self._index.ntotal)
        found: IntArray = self._index.search(_filled(query_QD), size)[1]
        return found


def _quantiser(embedding_size: int) -> Any:
    parts = num_parts(embedding_size)
    return require_extra().ProductQuantizer(parts * PART, parts, 4)


def _filled(x_PD: Floats) -> Floats:
    """Zeros in the last numbers, up to whole parts."""
    missing = num_parts(x_PD.shape[1]) * PART - x_PD.shape[1]
    return np.ascontiguousarray(np.pad(x_PD, ((0, 0), (0, missing))) if missing else x_PD, np.float32)

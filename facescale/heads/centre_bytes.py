"""Memory that a head with class centres needs on one process, predicted from its sizes."""

import torch

from facescale.centres.disk import record_bytes
from facescale.centres.rows import initial_bytes
from facescale.centres.store import CentreStore
from facescale.heads.base import Bytes
from facescale.margins import Margin
from facescale.ops import StochasticRounding

_FLOAT = 4
_TEMPORARIES = 16  # (R, B) float32 tensors alive at once while autograd differentiates a margin
_THREAD = 8 << 20  # what the thread that stages rows keeps of memory it has freed


def centre_bytes(
    store: CentreStore,
    margin: Margin,
    products: torch.dtype,
    chunk: int,
    batch: int,
    num_selected: int | None,
) -> Bytes:
    """Planned memory of a ``CentreHead``.

    Args:
        store: where the centres are.
        margin: the margin.
        products: precision of matrix products.
        chunk: classes evaluated at a time.
        batch: images of all processes.
        num_selected: classes looked at in a step (None: all).
    """
    dim, per_id = store.dim, store.rows_per_id
    record, in_file = sum(plane.bytes for plane in store.planes), record_bytes(store.planes)
    wide = sum(plane.width * max(_FLOAT, plane.dtype.itemsize) for plane in store.planes)
    selected = store.num_rows if num_selected is None else num_selected * per_id
    rows = min(chunk * per_id, selected)

    work = rows * (2 * batch + 1) * _FLOAT + (selected if num_selected is None else rows) * _FLOAT
    work += rows * dim * _FLOAT * (len(store.planes) == 1 or any(p.name == "steps" for p in store.planes))
    if not margin.plain_others or margin.tally is not None:
        work += _TEMPORARIES * rows // per_id * batch * _FLOAT
    work += batch * dim * _FLOAT * (6 + per_id)  # embeddings, their gradients, own rows
    narrow = any(p.dtype.is_floating_point and p.dtype.itemsize < _FLOAT for p in store.planes)
    if narrow:
        work += StochasticRounding.bytes + 3 * rows * dim * _FLOAT

    host = disk = device = 0
    resident = store.num_rows * record
    if num_selected is not None:
        work += selected * (2 * batch * products.itemsize + _FLOAT) + 100 * num_selected
    if store.placement == "device":
        device = resident
        if num_selected is not None or narrow:
            work += rows * (wide + (dim * _FLOAT if narrow else 0))
    else:
        staged = rows if num_selected is None else selected
        own = batch * per_id
        buffers = 2 * (staged + own) * (in_file if store.placement == "disk" else record) * 17 // 16
        if store.dist.device.type == "cuda" or narrow:
            work += staged * wide
        if store.placement == "disk":
            disk = store.num_rows * in_file
            host = initial_bytes(dim, store.num_ids * per_id) + store.num_rows // 4
        else:
            host = resident
        host += buffers + _THREAD
    return Bytes(device=device, host=host, disk=disk, transient=work)

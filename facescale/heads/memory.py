"""Memory that a head with class centres needs on one process, predicted from its sizes."""

import torch

from facescale.centres.disk import begins_compiled
from facescale.centres.disk_snapshot import record_bytes
from facescale.centres.initial import initial_bytes
from facescale.centres.layout import BLOCK
from facescale.centres.record_index import NUMBER_BYTES, table_bytes
from facescale.centres.store import CentreStore
from facescale.heads.base import Bytes
from facescale.heads.fused_softmax import FusedSoftmax
from facescale.margins import Margin
from facescale.ops import StochasticRounding

# R rows of a chunk, N rows that a step reads, B batch of all processes, D embedding size

_FLOAT = 4
# (C, B) float32 tensors while autograd differentiates a margin: about 16 at once, the rest is freed in pieces
_TEMPORARIES = 22
_THREAD = 8 << 20  # what the thread that reads rows from disk keeps of memory it has freed


def centre_bytes(
    store: CentreStore,
    margin: Margin,
    products: torch.dtype,
    chunk: int,
    batch: int,
    num_selected: int | None,
    fused: FusedSoftmax | None = None,
) -> Bytes:
    """Planned memory of a ``CentreHead``.

    Args:
        store: where the centres are.
        margin: the margin.
        products: precision of matrix products.
        chunk: classes evaluated at a time.
        batch: images of all processes.
        num_selected: classes that a step compares with (None: all).
        fused: evaluates them instead, where it takes the batch.
    """
    if fused is not None and fused.takes(batch):
        embeddings = batch * store.dim * _FLOAT * (6 + store.rows_per_id) + 16 * (num_selected or 0)
        rows_bytes = store.num_rows * sum(field.bytes for field in store.fields)
        rounded = StochasticRounding.bytes if store.fields[0].dtype is not torch.float32 else 0
        return Bytes(device=rows_bytes, transient=fused.transient_bytes(batch) + embeddings + rounded)
    sampled, per_id = num_selected is not None, store.rows_per_id
    rows_read = store.num_rows if num_selected is None else num_selected * per_id
    rows = min(chunk * per_id, rows_read)
    work = _of_chunk(margin, products, rows, batch, store.dim, sampled)
    if products is torch.float32 or not store.fuses:
        work += rows * store.dim * _FLOAT  # the gradient of the rows
    work += rows_read * _FLOAT + batch * store.dim * _FLOAT * (6 + per_id)  # norms; embeddings, target rows
    if num_selected is not None:
        work += _of_sample(margin, products, rows_read, batch, per_id) + 100 * num_selected
    staged = rows if not sampled else rows_read
    work += _of_copies(store, rows, staged, sampled)
    block = BLOCK * store.dim * _FLOAT
    first = initial_bytes(store.dim, store.num_ids * per_id) + 3 * block
    resident = store.num_rows * sum(field.bytes for field in store.fields)
    if store.placement == "device":
        on_cpu = store.dist.device.type == "cpu"  # where the first rows are drawn, too
        return Bytes(device=resident, transient=max(work, first) if on_cpu else work)
    buffers = 2 * (staged + batch * per_id) * 17 // 16
    if store.placement == "host":
        return Bytes(host=resident + max(first, buffers * resident // max(1, store.num_rows)), transient=work)
    record = record_bytes(store.fields)
    spare = 0 if begins_compiled(store.fields) else block + _THREAD
    numbers = table_bytes(store.num_rows)
    host = buffers * record + first + spare + numbers + store.num_rows // 4
    return Bytes(host=host, disk=store.num_rows * (record + NUMBER_BYTES), transient=work)


def _of_chunk(margin: Margin, products: torch.dtype, rows: int, batch: int, dim: int, sampled: bool) -> int:
    """What ``ChunkedSoftmax`` holds of a chunk of rows."""
    cells, classes = rows * batch, rows // margin.subcentres * batch
    work = classes * _FLOAT + cells * _FLOAT  # logits, their product with the cosines
    if products is torch.float32:
        work += 0 if sampled else cells * _FLOAT  # those of a sample are kept for all its chunks
    else:
        half = products.itemsize  # products in both precisions; rows, weights, gradient and batch in half
        work += cells * (_FLOAT + half + (0 if sampled else half)) + (2 * rows + batch) * dim * half
    bent = not margin.plain_negatives or margin.counts is not None
    if bent or margin.subcentres > 1:
        work += cells * _FLOAT  # the cosines beside the products
    if bent:
        work += _TEMPORARIES * classes * _FLOAT
    if margin.subcentres > 1:
        # weights of all rows, nearest ones and which they are; made anew for each chunk
        work += 3 * cells * _FLOAT + classes * (_FLOAT + 8)
    return work


def _of_sample(margin: Margin, products: torch.dtype, rows_read: int, batch: int, per_id: int) -> int:
    """Products, and exponentials where they are kept, of all sampled rows with the batch."""
    keeps_exp = margin.reduction == "softmax" and margin.plain_negatives and margin.counts is None
    kept = rows_read + (rows_read // per_id if keeps_exp and margin.scale < 64.1 else 0)
    return kept * batch * products.itemsize


def _of_copies(store: CentreStore, rows: int, staged: int, sampled: bool) -> int:
    """Rows on the device beside the stored ones: gathered, widened, rounded, or caught up."""
    values = store.dim * _FLOAT
    wide = sum(field.width * max(_FLOAT, field.dtype.itemsize) for field in store.fields)
    narrow = [p for p in store.fields if p.dtype.is_floating_point and p.dtype.itemsize < _FLOAT]
    decays = any(field.name == "last" for field in store.fields)
    work = 0
    if store.placement == "device":
        staged = rows
        if store.fuses:
            work += rows * values if sampled else 0
        elif sampled or narrow:
            work += rows * (wide + (values // 2 if narrow and sampled else 0))
    elif narrow or store.dist.device.type == "cuda":
        in_turn = 2 if store.dist.device.type == "cuda" and not sampled else 1
        work += staged * wide * in_turn
    if narrow:
        work += StochasticRounding.bytes * 3 // 2 + staged * values * 3 // 2 + rows * values  # bits; copies
    return work + (staged * values if decays else 0)

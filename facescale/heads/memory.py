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
from facescale.heads.plain_softmax import PlainSoftmax
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
    logits_bytes: int,
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
        logits_bytes: most that is kept of the logits of all classes.
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
    cell = batch * products.itemsize
    kept = rows_read if sampled else rows_kept(rows_read, chunk * per_id, cell, logits_bytes)
    work = kept * cell + _of_chunk(margin, products, rows, batch, store.dim, kept == rows_read)
    if products is torch.float32 or not store.fuses:
        work += rows * store.dim * _FLOAT  # the gradient of the rows
    work += rows_read * _FLOAT + batch * store.dim * _FLOAT * (6 + per_id)  # norms; embeddings, target rows
    if num_selected is not None:
        work += 100 * num_selected
    of_all = 0 if sampled else kept * cell
    staged = rows if not sampled else rows_read
    work += _of_copies(store, rows, staged, sampled)
    block = BLOCK * store.dim * _FLOAT
    first = initial_bytes(store.dim, store.num_ids * per_id) + 3 * block
    resident = store.num_rows * sum(field.bytes for field in store.fields)
    if store.placement == "device":
        on_cpu = store.dist.device.type == "cpu"  # where the first rows are drawn, too
        return Bytes(device=resident, transient=max(work, first) if on_cpu else work, kept=of_all)
    buffers = 2 * (staged + batch * per_id) * 17 // 16
    if store.placement == "host":
        host = resident + max(first, buffers * resident // max(1, store.num_rows))
        return Bytes(host=host, transient=work, kept=of_all)
    record = record_bytes(store.fields)
    spare = 0 if begins_compiled(store.fields) else block + _THREAD
    numbers = table_bytes(store.num_rows)
    host = buffers * record + first + spare + numbers + store.num_rows // 4
    disk = store.num_rows * (record + NUMBER_BYTES)
    return Bytes(host=host, disk=disk, transient=work, kept=of_all)


def rows_kept(num_rows: int, of_chunk: int, row_bytes: int, most: int) -> int:
    """Of how many rows, in whole chunks from the first one on, ``most`` bytes keep ``row_bytes``."""
    rows = min(num_rows, most // row_bytes)
    return rows if rows == num_rows else rows // of_chunk * of_chunk


def _of_chunk(margin: Margin, products: torch.dtype, rows: int, batch: int, dim: int, kept: bool) -> int:
    """What is held of a chunk of rows, where what is kept of the logits is not (or of some chunks only)."""
    cells, classes, half = rows * batch, rows // margin.subcentres * batch, products.itemsize
    in_half = products is not torch.float32
    work = (2 * rows + batch) * dim * half if in_half else 0  # rows, gradient and batch
    if in_half:  # products and weights, of which one is kept, and one of them in float32, too
        work += cells * (_FLOAT + half + (0 if kept else half))
    elif not kept:
        work += cells * _FLOAT
    if PlainSoftmax.takes(margin):
        return work
    work += classes * _FLOAT  # logits
    bent = not margin.plain_negatives or margin.counts is not None
    if bent or margin.subcentres > 1:
        work += cells * _FLOAT  # the cosines beside the products
    if bent:
        work += _TEMPORARIES * classes * _FLOAT
    if margin.subcentres > 1:
        # weights of all rows, nearest ones and which they are; made anew for each chunk
        work += 3 * cells * _FLOAT + classes * (_FLOAT + 8)
    return work


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

"""The update of class centres after a step, one chunk of rows after the other."""

from collections.abc import Sequence

from torch import Tensor

from facescale.centres.layout import count
from facescale.centres.row_block import RowBlock
from facescale.centres.store import CentreStore
from facescale.heads.chunked_softmax import ChunkedSoftmax
from facescale.heads.class_chunks import ClassChunks
from facescale.heads.saved_batch import SavedBatch


def move_rows(
    store: CentreStore,
    softmax: ChunkedSoftmax,
    chunks: ClassChunks,
    moving: tuple[Tensor | None, RowBlock | None],
    batches: Sequence[SavedBatch],
    loss_scale: float,
    lr: float,
) -> None:
    """Move rows by the gradient that is recomputed from the batches of a step.

    Args:
        store: the class centres.
        softmax: evaluates a chunk.
        chunks: reads the rows.
        moving: classes that move (None: all) and their rows where these are staged.
        batches: those since the last step, with columns among these classes.
        loss_scale: factor on the loss, to be divided out.
        lr: rate.
    """
    (classes, block), pushes = moving, softmax.pushes(batches, loss_scale)
    # Rows that move in place need not be copied where everything else that they are needed for was kept.
    unread = classes is not None and store.in_place and all(one.kept_NB is not None for one in batches)
    for first, rows, part in chunks.read(classes, block, only_rows=store.in_place, unread=unread):
        if store.fused:
            w_RD = None if unread else part.rows_RD
            store.move(rows, part, softmax.gradient(w_RD, count(rows), first, pushes), lr)
            continue
        into = store.rule.gradient_into(part.fields)
        decay = store.rule.coupled_decay
        grad_RD = softmax.row_gradient(part.rows_RD, first, pushes, decay, *into)
        store.update(rows, part, grad_RD, lr)
    if classes is not None and block is not None:
        store.write_back(store.rows_of(classes), block)

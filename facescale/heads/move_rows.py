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
    classes, block = moving
    decay = store.rule.coupled_decay
    # Rows that move in place need not be copied, nor read if the products with them were kept.
    unread = store.in_place and all(saved.product_NB is not None for saved in batches)
    for first, rows, part in chunks.read(classes, block, only_rows=store.in_place, unread=unread):
        if store.fused:
            w_RD = None if unread else part.rows_RD
            gradient = softmax.gradient_parts(w_RD, count(rows), first, batches, decay, loss_scale)
            store.move(rows, part, *gradient, lr)
            continue
        into = store.rule.gradient_into(part.fields)
        grad_RD = softmax.row_gradient(part.rows_RD, first, batches, decay, loss_scale, *into)
        store.update(rows, part, grad_RD, lr)
    if classes is not None and block is not None:
        store.write_back(store.rows_of(classes), block)

"""Exact softmax over all class centres: every class in every step."""

from typing import Any, Literal

from facescale.centres.options import StoreOptions, takes_store_options
from facescale.distributed import Dist
from facescale.heads.centre_head import LOGITS_MB, CentreHead
from facescale.margins import Margin


@takes_store_options
class FullHead(CentreHead):
    """Margin loss over all identities, exact, in chunks of classes; see ``CentreHead``.

    All rows are read twice and written once per step. Their gradient needs the logits a second time: some are
    kept (``logits_mb``), the others are computed again, at the cost of one of the four products of a step,
    with the same result, bit by bit. Optimizer rows are those of ``CentreStore``.

    Example:
        >>> head = facescale.heads.build("full", num_ids=1000, embedding_size=16, margin="cosface")
        >>> q_VBD = torch.randn(1, 8, 16, requires_grad=True)  # one view of 8 images
        >>> out = head(q_VBD, torch.arange(8))
        >>> out.loss.backward()
        >>> head.after_step(lr=0.1)  # the rows move
        >>> tuple(q_VBD.grad.shape), sorted(out.stats)
        ((1, 8, 16), ['norm', 'target_cosine'])

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines.
        dist: this process among its peers.
        products: precision of matrix products: "auto", "float32" or "bfloat16".
        chunk: classes evaluated at a time; 0 is a good size for the device.
        logits_mb: MB of each process for a number a logit, in the precision of products; 0 keeps none. Where
            Triton's kernels run (see the guide), they keep none either way.
        compat: as released: -log p is cut at 69.08, identities that are -1 count; see ``CentreHead``.
        seed: seed of the start values.
        **store: see ``StoreOptions``.
    """

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        margin: Margin,
        dist: Dist,
        *,
        products: Literal["auto", "float32", "bfloat16"] = "auto",
        chunk: int = 0,
        logits_mb: int = LOGITS_MB,
        compat: bool = False,
        seed: int = 0,
        **store: Any,
    ) -> None:
        super().__init__(
            num_ids,
            embedding_size,
            margin,
            dist,
            products=products,
            chunk=chunk,
            logits_mb=logits_mb,
            compat=compat,
            seed=seed,
            store=StoreOptions(**store),
        )

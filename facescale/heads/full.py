"""Exact softmax over all class centres: every class in every step."""

from pathlib import Path

from facescale.distributed import Dist
from facescale.heads.centre_head import CentreHead
from facescale.margins import Margin


class FullHead(CentreHead):
    """Margin loss over all identities, exact, in chunks of classes; see ``CentreHead``.

    All rows are read twice and written once per step. Optimiser rows are those of ``CentreStore``.

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines.
        dist: this process among its peers.
        optimizer: of the centres: "sgd" or "adamw".
        momentum: of sgd.
        weight_decay: of the centres.
        placement: where the centres are: "device", "host" or "disk".
        store_dtype: of the stored centres: "float32", "bfloat16" or "float16".
        directory: folder for placement "disk".
        products: precision of matrix products: "auto", "float32" or "bfloat16".
        chunk: classes evaluated at a time; 0 is a good size for the device.
        compat: as released: -log p is cut at 69.08, identities that are -1 count; see ``CentreHead``.
        seed: of the start values.
    """

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        margin: Margin,
        dist: Dist,
        *,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        placement: str = "device",
        store_dtype: str = "float32",
        directory: str | Path | None = None,
        products: str = "auto",
        chunk: int = 0,
        compat: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_ids,
            embedding_size,
            margin,
            dist,
            products=products,
            chunk=chunk,
            compat=compat,
            sampled=False,
            seed=seed,
            optimiser=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            placement=placement,
            store_dtype=store_dtype,
            directory=directory,
        )

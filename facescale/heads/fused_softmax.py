"""A softmax margin over class centres by two Triton kernels, where the head and the GPU allow it."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from facescale import kernels
from facescale.centres.row_optim import RowSGD
from facescale.centres.store import CentreStore
from facescale.heads.saved_batch import SavedBatch
from facescale.heads.softmax import is_bounded, is_plain
from facescale.margins import Margin
from facescale.ops import to_device, unit

# B batch (of all processes), C classes, N rows of the store, D embedding size

_CAPABILITY = (8, 0)  # Ampere, the first with bfloat16 units


class FusedSoftmax:
    """What ``ChunkedSoftmax`` computes, for all rows at once: one kernel forward, one that moves the rows.

    No logits, no gradient of rows and no copies of rows are in memory. ``ChunkedSoftmax`` is what it is
    tested against, and what runs everywhere else.

    Args:
        module: ``kernels.class_softmax``.
        margin: one whose negatives are scaled cosines.
        store: rows in device memory, moved by SGD.
    """

    def __init__(self, module: ModuleType, margin: Margin, store: CentreStore) -> None:
        self._kernels, self._margin, self._store = module, margin, store
        self._bounded = is_bounded(margin)

    def takes(self, batch: int) -> bool:
        """Whether a batch of that size fits."""
        return batch <= int(self._kernels.MAX_BATCH)

    def transient_bytes(self, batch: int) -> int:
        """Memory of a step beside the embeddings."""
        return int(self._kernels.forward_bytes(batch, self._store.dim))

    def forward(self, saved: SavedBatch, classes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What ``ChunkedSoftmax.forward`` returns.

        Args:
            saved: the batch.
            classes: local classes to compare with, in host memory; None is all.
        """
        found: tuple[Tensor, Tensor, Tensor] = self._kernels.forward(
            saved.factor_BD, self._rows(saved, classes), self._margin.scale, self._bounded
        )
        return found

    def value(self, saved: SavedBatch, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-sum-exp (B,) over the negatives and its gradient (B, D), where one process has all classes."""
        found: tuple[Tensor, Tensor] = self._kernels.value(
            saved.factor_BD, self._rows(saved, classes), self._margin.scale, self._bounded
        )
        return found

    def _rows(self, saved: SavedBatch, classes: Tensor | None) -> Any:
        return self._kernels.Rows(self._tensor("rows"), saved.place_B, self._there(classes))

    def move(
        self, batches: Sequence[SavedBatch], classes: Tensor | None, loss_scale: float, lr: float
    ) -> None:
        """Move the rows by what backward left.

        Args:
            batches: those since the last step, with columns among the same classes.
            classes: see ``forward``.
            loss_scale: factor on the loss, to be divided out.
            lr: rate.
        """
        store = self._store
        rule, rounding = store.rule, store.rounding
        assert isinstance(rule, RowSGD)

        def of_all(parts: Sequence[Tensor]) -> Tensor:
            return parts[0] if len(parts) == 1 else torch.cat(list(parts))

        self._kernels.move(
            of_all([one.factor_BD for one in batches]),
            self._tensor("rows"),
            self._tensor("momentum") if rule.momentum else None,
            of_all([one.place_B for one in batches]),
            of_all([one.value_B for one in batches]),
            of_all([one.grad_value_B for one in batches]) / loss_scale,
            of_all([one.grad_target_B for one in batches]) / loss_scale,
            scale=self._margin.scale,
            decay=rule.coupled_decay,
            momentum=rule.momentum,
            lr=lr,
            seed=rounding.number() if rounding else 0,
            row_C=self._there(classes),
        )

    def _tensor(self, name: str) -> Tensor:
        assert self._store.memory is not None
        return self._store.memory.tensors[name]

    def _there(self, classes: Tensor | None) -> Tensor | None:
        """Rows of the classes where the rows are."""
        return None if classes is None else to_device(self._store.dist.device, classes)[0]


def unit_and_norm(x_GD: Tensor, by_kernels: bool) -> tuple[Tensor, Tensor]:
    """Rows of length 1 and their lengths before, (G,), with gradient.

    Args:
        x_GD: rows.
        by_kernels: in one launch, where ``kernels_for`` found that Triton's kernels run.
    """
    module = kernels.gpu_kernels("unit_rows") if by_kernels and x_GD.dtype is torch.float32 else None
    if module is None:
        return unit(x_GD), x_GD.norm(dim=1)
    found: tuple[Tensor, Tensor] = module.unit_and_norm(x_GD)
    return found


def fused_softmax(margin: Margin, store: CentreStore, products: torch.dtype) -> FusedSoftmax | None:
    """The kernels for a head, or None where they do not compute what it needs, or do not run."""
    rule, kinds = store.rule, {field.dtype for field in store.fields}
    moves = isinstance(rule, RowSGD) and not rule.nesterov and store.dense is None
    in_memory = store.placement == "device" and kinds in ({torch.float32}, {torch.bfloat16})
    if not (moves and in_memory and margin.subcentres == 1 and is_plain(margin)):
        return None
    module = kernels_for(store.dist.device, products, store.dim)
    return None if module is None else FusedSoftmax(module, margin, store)


def kernels_for(device: torch.device, products: torch.dtype, dim: int) -> ModuleType | None:
    """``kernels.class_softmax`` where it runs and the GPU has units for the products."""
    if device.type != "cuda" or products is not torch.bfloat16 or not torch.cuda.is_available():
        return None
    if torch.cuda.get_device_capability(device) < _CAPABILITY:
        return None
    module = kernels.gpu_kernels("class_softmax")
    if module is None or dim > module.MAX_DIM:
        return None
    return module if kernels.agree("Triton kernels", check, module, device, dim) else None


def check(
    module: ModuleType, device: torch.device, products: torch.dtype, dim: int, tolerance: float
) -> None:
    """Compare the kernels with torch on a few rows of ``dim`` numbers.

    Raises:
        ArithmeticError: they differ by more than ``tolerance`` of the largest number.
    """
    generator = torch.Generator().manual_seed(0)
    w_ND, e_BD, m_ND = (
        torch.randn(n, dim, generator=generator, device="cpu").to(device) for n in (90, 9, 90)
    )
    row_C, own_B = torch.arange(0, 90, 2, device=device), torch.arange(-1, 8, device=device)
    e_BD, ones_B = torch.nn.functional.normalize(e_BD).to(products), torch.ones(9, device=device)
    unit_CD, scale, lr = torch.nn.functional.normalize(w_ND[row_C]), 16.0, 0.1
    cos_BC = e_BD.float() @ unit_CD.T
    own = own_B[:, None] == torch.arange(len(row_C), device=device)
    weight_BC = (scale * cos_BC).masked_fill(own, -torch.inf).exp()
    sum_B = weight_BC.sum(1)
    grad_BD = scale * weight_BC @ unit_CD / sum_B[:, None]
    weight_BC = torch.where(own, -1.0, scale * weight_BC / sum_B[:, None])
    grad_CD = weight_BC.T @ e_BD.float() - (weight_BC * cos_BC).sum(0)[:, None] * unit_CD
    m_CD = 0.9 * m_ND[row_C] + grad_CD / w_ND[row_C].norm(dim=1, keepdim=True) + 1e-3 * w_ND[row_C]
    expected = sum_B.log(), grad_BD, m_CD, w_ND[row_C] - lr * m_CD
    short_BD, length_B = unit_and_norm(3 * e_BD.float(), by_kernels=True)
    if not (short_BD - e_BD.float()).abs().max() <= tolerance or not (length_B - 3).abs().max() <= tolerance:
        raise ArithmeticError("a unit row differs from torch's")
    rows = module.Rows(w_ND, own_B, row_C)
    found_B, found_BD = module.value(e_BD, rows, scale, True)
    factors = {"scale": scale, "decay": 1e-3, "momentum": 0.9, "lr": lr, "seed": 0}
    module.move(e_BD, w_ND, m_ND, own_B, sum_B.log(), ones_B, -ones_B, **factors, row_C=row_C)
    found = found_B, found_BD, m_ND[row_C], w_ND[row_C]
    for name, here, there in zip(("value", "gradient", "momentum", "row"), expected, found, strict=True):
        if not (here - there).abs().max() <= tolerance * here.abs().max():
            raise ArithmeticError(f"the {name} differs from torch's")

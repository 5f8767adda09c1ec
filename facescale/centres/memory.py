"""Class-centre rows in device or host memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from facescale.centres.layout import BLOCK, RowField, Rows, count


def scatter_(into_NW: Tensor, rows: Tensor, values_RW: Tensor) -> None:
    """In place ``into[rows] <- values``, both contiguous and of one type.

    torch copies value by value; where two or more of them are 8 bytes it copies these.
    """
    if into_NW.shape[1] * into_NW.dtype.itemsize % 8 == 0:
        into_NW, values_RW = into_NW.view(torch.float64), values_RW.view(torch.float64)
    into_NW.index_copy_(0, rows, values_RW)


class MemoryRows:
    """Rows in device or host memory, one tensor per field.

    Args:
        num_rows: N.
        planes: what is kept per row.
        device: where the rows are.
        pinned: page-locked host memory, for copies to a GPU.
    """

    def __init__(
        self, num_rows: int, fields: Sequence[RowField], device: torch.device, pinned: bool = False
    ) -> None:
        self.fields = tuple(fields)
        self.pinned = pinned
        self.tensors = {
            p.name: torch.zeros(num_rows, p.width, dtype=p.dtype, device=device, pin_memory=pinned)
            for p in fields
        }

    def has_finite_lengths(self) -> bool:
        """Whether the squared lengths of all rows are finite numbers."""
        sums = [block.float().square().sum() for block in self.tensors["rows"].split(BLOCK)]
        return not sums or bool(torch.stack(sums).isfinite().all())

    def new_buffer(self, num_rows: int) -> dict[str, Tensor]:
        """Tensors for ``num_rows`` rows, as ``read`` and ``write`` take them."""
        return {
            p.name: torch.empty(num_rows, p.width, dtype=p.dtype, pin_memory=self.pinned) for p in self.fields
        }

    def read(self, rows: Rows, buffer: dict[str, Tensor], at: Tensor | None = None) -> None:
        """Copy rows, and no others, into ``buffer``: to its first places, or to the places ``at``."""
        for name, into in buffer.items():
            tensor = self.tensors[name]
            if isinstance(rows, slice):
                into[: count(rows)].copy_(tensor[rows])
            elif at is not None:
                for places, some in zip(at.split(BLOCK), rows.split(BLOCK), strict=True):
                    into.index_copy_(0, places, tensor.index_select(0, some))
            else:
                torch.index_select(tensor, 0, rows, out=into[: len(rows)])

    def write(self, rows: Rows, buffer: dict[str, Tensor]) -> None:
        """Copy the first places of ``buffer`` to rows, and to no others."""
        for name, values in buffer.items():
            if isinstance(rows, slice):
                self.tensors[name][rows] = values[: count(rows)]
            else:
                scatter_(self.tensors[name], rows, values[: len(rows)])

"""Working copies of some class-centre rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from facescale.centres.layout import RowField
from facescale.centres.staging import Buffer

# R rows at hand, D embedding size


@dataclass
class RowBlock:
    """Rows that a step computes with.

    Attributes:
        fields: one tensor (R, width) per field, floating ones in float32, on the compute device.
        buffer: what they were copied from and go back to (host and disk).
    """

    fields: dict[str, Tensor]
    buffer: Buffer | None = None

    @property
    def rows_RD(self) -> Tensor:  # noqa: N802
        """The rows themselves."""
        return self.fields["rows"]

    def part(self, start: int, stop: int) -> "RowBlock":
        """Rows start to stop of it, sharing memory."""
        return RowBlock({name: tensor[start:stop] for name, tensor in self.fields.items()})


def wide(field: RowField) -> torch.dtype:
    """Precision in which a field is computed with."""
    return torch.float32 if field.dtype.is_floating_point else field.dtype

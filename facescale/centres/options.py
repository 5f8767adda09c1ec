"""Options of the class centres: where they are, how they are stored and how they are optimized."""

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch

from facescale.centres.row_optim import RowAdamW, RowRule, RowSGD

T = TypeVar("T")

Placement = Literal["device", "host", "disk"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StoreOptions:
    """Options of a ``CentreStore``, which the heads that keep one take as their own.

    Args:
        optimizer: optimizer of the class centres: "sgd" or "adamw".
        momentum: momentum of sgd.
        nesterov: Nesterov's form of sgd.
        betas: decay of adamw's two moments.
        weight_decay: decay of the class centres; sgd adds it to the gradient, adamw decouples it.
        placement: memory of the class centres: "device", "host" (pinned if the device is a GPU) or "disk".
        store_dtype: precision of the stored class centres: "float32", "bfloat16" or "float16".
        directory: folder for placement "disk"; each process makes its own folder in it.

    Raises:
        ValueError: a value out of range, or options that do not go together.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    placement: Placement = "device"
    store_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    directory: str | Path | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            allowed, value = get_args(field.type), getattr(self, field.name)
            if field.name in ("optimizer", "placement", "store_dtype") and value not in allowed:
                raise ValueError(
                    f"{field.name} of the class centres is '{value}'; choose one of: {', '.join(allowed)}"
                )
        if self.weight_decay < 0:
            raise ValueError(
                f"weight_decay of the class centres is {self.weight_decay}; it must be 0 or more"
            )
        if (self.placement == "disk") != (self.directory is not None):
            raise ValueError(
                f"placement is '{self.placement}' and directory is {self.directory}; placement 'disk' needs "
                "a directory for its file, the others take none"
            )

    @property
    def dtype(self) -> torch.dtype:
        """``store_dtype`` as torch's type."""
        return DTYPES[self.store_dtype]

    def row_rule(self) -> RowRule:
        """The optimizer, for some rows at a time.

        Raises:
            ValueError: momentum, nesterov or betas out of range.
        """
        if self.optimizer == "sgd":
            return RowSGD(self.momentum, self.weight_decay, self.nesterov)
        return RowAdamW(self.weight_decay, self.betas)


def takes_store_options(head: type[T]) -> type[T]:
    """Class decorator: ``**store`` of the constructor stands for the fields of ``StoreOptions``.

    ``inspect.signature`` and ``help`` show each of them as a keyword-only parameter with type, default and
    meaning, so that they are spelled once and found like the head's own options.
    """
    signature = inspect.signature(head.__init__)
    _, *own, _ = signature.parameters.values()  # without self and **store
    ours = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(StoreOptions).parameters.values()]
    head.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *ours], return_annotation=inspect.Signature.empty
    )
    meanings = inspect.cleandoc(StoreOptions.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    placeholder = "    **store: see ``StoreOptions``."
    doc = inspect.cleandoc(head.__doc__ or "")
    assert placeholder in doc, f"{head.__name__} does not document **store"
    head.__doc__ = doc.replace(placeholder, meanings)
    return head

"""The size of a backbone without building it: shapes only, no memory, no random numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from facescale.backbones import build


def skeleton(name: str, embedding_size: int = 512, **options: Any) -> nn.Module:
    """Build a backbone on the meta device: names, shapes and types, no values.

    Raises:
        ValueError: as `facescale.backbones.build`.
    """
    with torch.device("meta"), _NoInitialisation():
        return build(name, embedding_size, **options)


def describe(name: str, embedding_size: int = 512, **options: Any) -> tuple[int, int]:
    """Parameters of a backbone, and multiply-adds of one image (convolutions, linear maps, attention).

    Raises:
        ValueError: as `facescale.backbones.build`.
    """
    net = skeleton(name, embedding_size, **options).eval()
    num_parameters = sum(p.numel() for p in net.parameters())
    for part in list(net.modules()):
        for key, child in part.named_children():
            if isinstance(child, _BatchNorm | nn.PReLU):
                setattr(part, key, nn.Identity())  # not counted, and half of the time
    side = int(net.input_size)  # type: ignore[arg-type]
    image = torch.empty(1, 3, side, side, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    return num_parameters, counter.get_total_flops() // 2


class _NoInitialisation(TorchFunctionMode):
    """Skip initialisers: on the meta device they have no effect but take most of the time."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
        if in_place and func.__name__ != "requires_grad_":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))

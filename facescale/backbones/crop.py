"""A network that looks at a part of its input image only."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn


def croppable(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Give the factory of a network, which must take ``input_size``, the option ``crop`` as well.

    The network sees only that square and is built for its side; ``input_size`` stays the side of the image
    that it is given. Data sets that frame faces differently (black borders, more or less hair) become alike,
    and shifts move in real pixels, not black.
    """
    signature = inspect.signature(make)
    crop = inspect.Parameter(
        "crop", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Sequence[int] | None
    )

    def cropped(*args: Any, crop: Sequence[int] | None = None, **options: Any) -> nn.Module:
        """The network that sees a square of its input.

        Args:
            *args: of the network.
            crop: the square as [left, top, side] in pixels of the input; left out, the whole image.
            **options: of the network.
        """
        if crop is None:
            return make(*args, **options)
        size = options.get("input_size", signature.parameters["input_size"].default)
        left, top, side = _checked(crop, size)
        net = make(*args, **{**options, "input_size": side})
        net.input_size = size
        net.register_forward_pre_hook(partial(_crop, left, top, side))
        return net

    if "input_size" not in signature.parameters:
        return make
    cropped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), crop])  # type: ignore[attr-defined]
    cropped.__wrapped__ = make  # type: ignore[attr-defined]
    return cropped


def _checked(crop: Sequence[int], size: int) -> tuple[int, int, int]:
    if len(crop) == 3:
        left, top, side = crop
        if min(left, top) >= 0 and side > 0 and max(left, top) + side <= size:
            return left, top, side
    raise ValueError(
        f"backbone.crop = {crop!r} must be [left, top, side] in whole pixels, a square within the {size} "
        "pixels of backbone.input_size"
    )


def _crop(left: int, top: int, side: int, net: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0][:, :, top : top + side, left : left + side]

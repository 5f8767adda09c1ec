"""Numerical building blocks shared by heads: cosines and softmax cross-entropy, always in float32."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.machine.bf16 import multiplies_bf16

# What layers compute in, by the names that configs use.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 64 << 20}  # of float32 rows: what stays in a cache, or fills a GPU

# B batch, C classes, D embedding size


def autocast(device: torch.device, precision: str, cached: bool = True) -> AbstractContextManager[object]:
    """A context in which layers compute in one of PRECISIONS; their weights stay float32.

    Args:
        device: where they compute.
        precision: a name of PRECISIONS.
        cached: keep the weights in that precision until the context is left.
    """
    if precision == "fp32":
        return without_autocast(device)
    return torch.autocast(device.type, PRECISIONS[precision], cache_enabled=cached)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which nothing is cast; a device without autocast (meta) has nothing to switch off."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def to_device(device: torch.device, *arrays: Tensor) -> list[Tensor]:
    """Tensors of host memory (of one type) on a device, in one copy that nobody waits for.

    A copy from memory that is not pinned, or one that is not ``non_blocking``, holds the host up until all
    that the device was asked to do before is done.
    """
    if device.type == "cpu":
        return list(arrays)
    sizes = [x.numel() for x in arrays]
    flat = torch.empty(sum(sizes), dtype=arrays[0].dtype, pin_memory=device.type == "cuda")
    torch.cat([x.reshape(-1) for x in arrays], out=flat)
    parts = flat.to(device, non_blocking=True).split(sizes)
    return [part.view(x.shape) for part, x in zip(parts, arrays, strict=True)]


def as_float(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def unit(x_BD: Tensor) -> Tensor:
    """Rows scaled to length 1, at least in float32, safe for zero rows."""
    return F.normalize(as_float(x_BD), dim=-1, eps=1e-12)


def normalise(images_BHW3: Tensor, mean: float = 127.5, std: float = 127.5) -> Tensor:
    """Pixels 0..255, (B, H, W, 3) -> float32 (B, 3, H, W), (v - mean) / std, in channels-last memory."""
    x_BHW3 = images_BHW3.to(torch.float32, copy=True).sub_(mean).div_(std)
    return x_BHW3.permute(0, 3, 1, 2)


def embed_views(embed: Callable[[Tensor], Tensor], images: Tensor, flip: bool, axis: int) -> list[Tensor]:
    """Raw embeddings (B, D) of images and, with ``flip``, of their mirror images (``axis``: the width)."""
    return [embed(images), embed(images.flip(axis))] if flip else [embed(images)]


def fuse_views(raw: Sequence[Tensor]) -> Tensor:
    """The raw embedding of an image from those of its views (B, D): their sum, as InsightFace has it."""
    total = raw[0]
    for view_BD in raw[1:]:
        total = total + view_BD
    return total


@contextmanager
def evaluating(module: nn.Module, device: torch.device, precision: str) -> Iterator[None]:
    """Inside: evaluation mode, no gradient, layers compute in one of PRECISIONS.

    Afterwards every sub-module has its own mode again, for some may be frozen.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), autocast(device, precision):
            yield
    finally:
        for part, training in modes:
            part.training = training


@torch.no_grad()
def ema_update_(averages: Sequence[Tensor], values: Sequence[Tensor], momentum: float) -> None:
    """In place ``average <- momentum * average + (1 - momentum) * value``, for lists of tensors."""
    torch._foreach_lerp_(list(averages), list(values), 1 - momentum)


def product_dtype(products: str, device: torch.device) -> torch.dtype:
    """Precision in which embeddings and centres are multiplied.

    Args:
        products: "float32", "bfloat16", or "auto" for bfloat16 where the device has units for it.
        device: where the product runs.

    Raises:
        ValueError: unknown name.
    """
    if products not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"products is '{products}'; it must be auto, float32 or bfloat16")
    if products != "auto":
        return torch.float32 if products == "float32" else torch.bfloat16
    return torch.bfloat16 if multiplies_bf16(device) else torch.float32


class Scratch:
    """Buffers that are allocated once and used in every step.

    A large fresh tensor costs one page fault per 4 KiB on a CPU, more than most of what is done with it.

    Args:
        device: where the buffers are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._flat: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of uninitialised values; the next ``take`` of the same name and dtype overwrites it."""
        size = math.prod(shape)
        flat = self._flat.get((name, dtype))
        if flat is None or flat.numel() < size:
            flat = self._flat[name, dtype] = torch.empty(size, dtype=dtype, device=self.device)
        return flat[:size].view(*shape)

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(flat.numel() * flat.element_size() for flat in self._flat.values())


class StochasticRounding:
    """Rounds float32 to bfloat16 or float16, up or down at random, so that the mean is exact.

    Small steps thus move half-precision values on average, where rounding to nearest would lose them. The
    random bits are windows of one fixed table: as good for this purpose as fresh ones, and free. (float16
    below its normal range, 6e-5, is rounded to nearest.)

    Args:
        device: where the values are.
        seed: of the random bits.

    Attributes:
        bytes: memory of the table.
    """

    bytes = 4 << 20

    def __init__(self, device: torch.device, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        bits = torch.randint(0, 1 << 16, (self.bytes // 4,), dtype=torch.int32, generator=generator)
        self._bits = bits.to(device)
        self._seed = seed
        self._windows = random.Random(seed)

    def seek(self, step: int) -> None:
        """Go to the random numbers of a step (so that a resumed run rounds as an uninterrupted one)."""
        self._windows.seed(f"{self._seed} {step}")  # the hash of a tuple may change with Python

    def round(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """``value`` (float32, any shape) in ``dtype``."""
        dropped = 16 if dtype is torch.bfloat16 else 13  # bits of the mantissa that do not fit
        flat = value.detach().reshape(-1).clone().view(torch.int32)
        for part in flat.split(len(self._bits) // 2):
            start = self._windows.randrange(len(self._bits) - len(part) + 1)
            part += self._bits[start : start + len(part)] & ((1 << dropped) - 1)
        flat &= -(1 << dropped)
        return flat.view(torch.float32).to(dtype).view(value.shape)


def cosine_logits(e_BD: Tensor, w_CD: Tensor) -> Tensor:
    """Cosines (B, C) of embeddings and class centres."""
    with without_autocast(e_BD.device):
        return unit(e_BD) @ unit(w_CD).T


def default_chunk(width: int, device: torch.device) -> int:
    """Classes whose rows (``width`` float32 values each) are a good piece of work for the device."""
    return max(64, _CHUNK_BYTES.get(device.type, 4 << 20) // (4 * width))

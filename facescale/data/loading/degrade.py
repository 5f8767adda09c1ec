"""Parts of the augmentation that take detail away: blur, fewer pixels, masks, blank rectangles.

Shapes: B images, H W height and width. Each function takes random numbers (B,) of its own and draws nothing,
so that an image's result does not depend on its batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_MIDDLE = 127.5  # grey: 0 once normalised
_LOW_SIDES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the side, for low resolution
_DOWN_SIDES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_ERASE_SIDES = (0.1, 0.5)
_SIGMA = (0.4, 2.0)  # pixels, of 112
_TAPS = 6  # pixels on either side that a blur reaches: three times the largest sigma
_MASK_TOP = (0.55, 0.68)  # of the height; the tip of the nose of an aligned face is at 0.64
_MASK_HALF_WIDTH = 0.4  # of the width


def lower_resolution(x_B3HW: Tensor, chosen_B: Tensor, side_B: Tensor) -> Tensor:
    """Shrink to 20-90 % of the side by area average, and enlarge again bilinearly."""
    return _shrunk(x_B3HW, chosen_B, side_B, _LOW_SIDES, "area")


def resize_down(x_B3HW: Tensor, chosen_B: Tensor, side_B: Tensor) -> Tensor:
    """Shrink to 50-95 % of the side and enlarge again, both bilinearly, with a plain resize's aliasing."""
    return _shrunk(x_B3HW, chosen_B, side_B, _DOWN_SIDES, "bilinear")


def _shrunk(x_B3HW: Tensor, chosen_B: Tensor, side_B: Tensor, sides: tuple[float, ...], mode: str) -> Tensor:
    height, width = x_B3HW.shape[2:]
    level_B = (side_B * len(sides)).long().clamp_(max=len(sides) - 1)
    levels = torch.where(chosen_B, level_B, -1).tolist()  # waits for the device; one size is scaled together
    x_B3HW = x_B3HW.clone()
    for level in sorted(set(levels) - {-1}):
        chosen = torch.tensor([i for i, one in enumerate(levels) if one == level], device=x_B3HW.device)
        side = [round(height * sides[level]), round(width * sides[level])]
        small = F.interpolate(x_B3HW[chosen], side, mode=mode)
        x_B3HW[chosen] = F.interpolate(small, [height, width], mode="bilinear", align_corners=False)
    return x_B3HW


def blur(x_B3HW: Tensor, chosen_B: Tensor, sigma_B: Tensor) -> Tensor:
    """Gaussian blur; the border is reflected. Its width goes with that of the image."""
    least, most = _SIGMA
    width = x_B3HW.shape[3]
    sigma_B1 = ((sigma_B * (most - least) + least) * width / 112)[:, None]
    reach = max(1, min(round(_TAPS * width / 112), min(x_B3HW.shape[2:]) - 1))
    distance = torch.arange(-reach, reach + 1, device=x_B3HW.device)
    weight_BT = torch.exp(-(distance**2) / (2 * sigma_B1**2))
    weight_BT = torch.where(chosen_B[:, None], weight_BT, (distance == 0).float())
    weight_BT = weight_BT / weight_BT.sum(dim=1, keepdim=True)
    return _along(_along(x_B3HW, weight_BT, 3), weight_BT, 2)


def _along(x_B3HW: Tensor, weight_BT: Tensor, axis: int) -> Tensor:
    """The weighted sum of neighbours along an axis."""
    reach, length = weight_BT.shape[1] // 2, x_B3HW.shape[axis]
    pad = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
    padded = F.pad(x_B3HW, pad, mode="reflect")
    total = torch.zeros_like(x_B3HW)
    for tap in range(weight_BT.shape[1]):
        total += padded.narrow(axis, tap, length) * weight_BT[:, tap, None, None, None]
    return total


def mask(x_B3HW: Tensor, chosen_B: Tensor, top_B: Tensor, colour_B3: Tensor) -> Tensor:
    """Cover mouth and chin of an aligned face, as a face mask does, with one colour (0..1)."""
    height, width = x_B3HW.shape[2:]
    least, most = _MASK_TOP
    top_B11 = (top_B * (most - least) + least)[:, None, None]
    y_H1 = ((torch.arange(height, device=x_B3HW.device) + 0.5) / height)[:, None]
    x_W = (torch.arange(width, device=x_B3HW.device) + 0.5) / width - 0.5
    down_BH1 = (y_H1 - top_B11) / (1.02 - top_B11)
    inside_BHW = (down_BH1 >= 0) & (down_BH1**2 + (x_W / _MASK_HALF_WIDTH) ** 2 <= 1)
    return torch.where(
        (inside_BHW & chosen_B[:, None, None])[:, None], 255 * colour_B3[:, :, None, None], x_B3HW
    )


def erase(x_B3HW: Tensor, chosen_B: Tensor, size_B2: Tensor, place_B2: Tensor) -> Tensor:
    """A grey rectangle of 10-50 % of each side; sizes and places are of y and x."""
    height, width = x_B3HW.shape[2:]
    rows_BH = _stretch(height, size_B2[:, 0], place_B2[:, 0])
    columns_BW = _stretch(width, size_B2[:, 1], place_B2[:, 1])
    inside_BHW = chosen_B[:, None, None] & rows_BH[:, :, None] & columns_BW[:, None, :]
    return x_B3HW.masked_fill(inside_BHW[:, None], _MIDDLE)


def _stretch(length: int, size_B: Tensor, place_B: Tensor) -> Tensor:
    """Which of ``length`` rows or columns a rectangle covers, bool (B, length)."""
    least, most = _ERASE_SIDES
    size_B1 = (size_B * (most - least) + least)[:, None] * length
    start_B1 = place_B[:, None] * (length - size_B1)
    at = torch.arange(length, device=size_B.device)
    return (at >= start_B1) & (at < start_B1 + size_B1)

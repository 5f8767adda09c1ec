"""uint8 image batches -> normalised network input, augmented on the device by numbers from the batch.

Shapes: B images, H W height and width, R random numbers. Nothing here draws: an image's augmentation is a
function of its own row of ``random``, so it is the same in any batch, on any process and device (up to
rounding).
"""

from enum import IntEnum, auto

import torch
import torch.nn.functional as F
from torch import Tensor

from facescale.config import AugmentConfig
from facescale.ops import normalise

_MIDDLE = 127.5  # grey: 0 once normalised
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of JPEG's and Pillow's grey
_LOW_SIDES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the side, for low resolution
_ERASE_SIDES = (0.1, 0.5)


class _Column(IntEnum):
    """What each random number of an image is for; new ones go to the end, so that old runs keep theirs."""

    FLIP = 0
    SHIFT_X = auto()
    SHIFT_Y = auto()
    SCALE = auto()
    ROTATE = auto()
    BRIGHTNESS = auto()
    CONTRAST = auto()
    SATURATION = auto()
    GREY = auto()
    LOW_RESOLUTION = auto()
    LOW_SIDE = auto()
    ERASE = auto()
    ERASE_HEIGHT = auto()
    ERASE_WIDTH = auto()
    ERASE_Y = auto()
    ERASE_X = auto()


NUM_RANDOM = len(_Column)

_STRONG = {
    "shift": 8,
    "scale": 0.15,
    "rotate": 12.0,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "grey": 0.2,
    "low_resolution": 0.3,
    "erase": 0.4,
}


def stronger(config: AugmentConfig) -> AugmentConfig:
    """The augmentation with every part at least strong, for views that show an image once more."""
    least = {name: max(getattr(config, name), value) for name, value in _STRONG.items()}
    return config.model_copy(update={"flip": True, **least})


class Augment:
    """Callable: uint8 images (B, H, W, 3) and random (B, R) -> normalised float32 (B, 3, H, W).

    In this order, each only if ``config`` asks for it: flip and shift by whole pixels; zoom and turn about
    the centre (bilinear); brightness, contrast, colourfulness, grey; low resolution (shrunk to 20-90 % of
    the side and enlarged again); a grey rectangle of 10-50 % of each side. What moves in from outside is
    black, as around aligned faces.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config

    def __call__(self, images_BHW3: Tensor, random_BR: Tensor) -> Tensor:
        """Augment and normalise a batch."""
        c = self._config
        if c.flip or c.shift:
            images_BHW3 = _flip_and_shift(images_BHW3, random_BR, c.flip, c.shift)
        geometry = c.scale > 0 or c.rotate > 0
        colour = max(c.brightness, c.contrast, c.saturation, c.grey) > 0
        if not (geometry or colour or c.low_resolution or c.erase):
            return normalise(images_BHW3)
        x_B3HW = images_BHW3.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        if geometry:
            x_B3HW = _zoom_and_turn(x_B3HW, random_BR, c.scale, c.rotate)
        if colour:
            x_B3HW = _recolour(x_B3HW, random_BR, c)
        if c.low_resolution:
            x_B3HW = _lower_resolution(x_B3HW, random_BR, c.low_resolution)
        if c.erase:
            x_B3HW = _erase(x_B3HW, random_BR, c.erase)
        return normalise(x_B3HW.permute(0, 2, 3, 1).contiguous())


def _signed(random_BR: Tensor, column: _Column, most: float) -> Tensor:
    """Numbers (B, 1, 1, 1) in -most .. most."""
    return (random_BR[:, column] * 2 - 1).mul(most)[:, None, None, None]


def _flip_and_shift(images: Tensor, random_BR: Tensor, flip: bool, shift: int) -> Tensor:
    """Mirror half of the images and move all by whole pixels, as one copy of rows.

    Each image and its mirror image are laid out with a border of ``shift`` black pixels. A row of the
    result is then 3 W consecutive bytes there, from a place that depends on the image's numbers.
    """
    num_images, height, width, _ = images.shape
    both = images.new_zeros(num_images, 2, height + 2 * shift, width + 2 * shift, 3)
    inside = both[:, :, shift : shift + height, shift : shift + width]
    inside[:, 0] = images
    inside[:, 1] = images.flip(2)
    steps = 2 * shift + 1
    y_B = (random_BR[:, _Column.SHIFT_Y] * steps).long().clamp_(max=2 * shift)
    x_B = (random_BR[:, _Column.SHIFT_X] * steps).long().clamp_(max=2 * shift)
    mirrored_B = (random_BR[:, _Column.FLIP] < 0.5).long() * int(flip)
    number_B = torch.arange(num_images, device=images.device) * 2 + mirrored_B
    top_B = number_B * (height + 2 * shift) + y_B
    row_BH = top_B[:, None] + torch.arange(height, device=images.device)
    start_BH = row_BH * (width + 2 * shift) + x_B[:, None]
    windows = both.as_strided((both.numel() // 3 - width + 1, 3 * width), (3, 1))  # one from every pixel
    return windows.index_select(0, start_BH.flatten()).view(images.shape)


def _zoom_and_turn(x_B3HW: Tensor, random_BR: Tensor, scale: float, rotate: float) -> Tensor:
    zoom = 1 + _signed(random_BR, _Column.SCALE, scale)[:, 0, 0, 0]
    angle = torch.deg2rad(_signed(random_BR, _Column.ROTATE, rotate)[:, 0, 0, 0])
    cos, sin, zero = angle.cos() / zoom, angle.sin() / zoom, torch.zeros_like(zoom)
    theta_B23 = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta_B23, list(x_B3HW.shape), align_corners=False)
    return F.grid_sample(x_B3HW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _recolour(x_B3HW: Tensor, random_BR: Tensor, c: AugmentConfig) -> Tensor:
    """Scale brightness, then the distance from grey, then that from the mean brightness, in one pass.

    With luma weights w: y = b x; y = s y + (1 - s) w.y; y = k y + (1 - k) mean(w.y), all linear in x.
    """
    luma_3 = x_B3HW.new_tensor(_LUMA)
    brightness_B11 = 1 + _signed(random_BR, _Column.BRIGHTNESS, c.brightness)[..., 0]
    contrast_B11 = 1 + _signed(random_BR, _Column.CONTRAST, c.contrast)[..., 0]
    colour_B11 = 1 + _signed(random_BR, _Column.SATURATION, c.saturation)[..., 0]
    colour_B11 = colour_B11 * (random_BR[:, _Column.GREY] >= c.grey)[:, None, None]
    matrix_B33 = colour_B11 * torch.eye(3, device=x_B3HW.device) + (1 - colour_B11) * luma_3
    mean_B11 = (x_B3HW.mean(dim=(2, 3)) @ luma_3)[:, None, None]
    y = torch.baddbmm(
        (1 - contrast_B11) * brightness_B11 * mean_B11,
        contrast_B11 * brightness_B11 * matrix_B33,
        x_B3HW.flatten(2),
    )
    return y.clamp_(0, 255).view(x_B3HW.shape)


def _lower_resolution(x_B3HW: Tensor, random_BR: Tensor, probability: float) -> Tensor:
    height, width = x_B3HW.shape[2:]
    level_B = (random_BR[:, _Column.LOW_SIDE] * len(_LOW_SIDES)).long().clamp_(max=len(_LOW_SIDES) - 1)
    level_B = torch.where(random_BR[:, _Column.LOW_RESOLUTION] < probability, level_B, -1)
    levels = level_B.tolist()  # waits for the device; images of one size are scaled together
    x_B3HW = x_B3HW.clone()
    for level in sorted(set(levels) - {-1}):
        chosen = torch.tensor([i for i, one in enumerate(levels) if one == level], device=x_B3HW.device)
        side = [round(height * _LOW_SIDES[level]), round(width * _LOW_SIDES[level])]
        small = F.interpolate(x_B3HW[chosen], side, mode="area")
        x_B3HW[chosen] = F.interpolate(small, [height, width], mode="bilinear", align_corners=False)
    return x_B3HW


def _erase(x_B3HW: Tensor, random_BR: Tensor, probability: float) -> Tensor:
    chosen = random_BR[:, _Column.ERASE] < probability
    height, width = x_B3HW.shape[2:]
    rows_BH = _stretch(height, random_BR[:, _Column.ERASE_HEIGHT], random_BR[:, _Column.ERASE_Y])
    columns_BW = _stretch(width, random_BR[:, _Column.ERASE_WIDTH], random_BR[:, _Column.ERASE_X])
    inside_BHW = chosen[:, None, None] & rows_BH[:, :, None] & columns_BW[:, None, :]
    return x_B3HW.masked_fill(inside_BHW[:, None], _MIDDLE)


def _stretch(length: int, size_B: Tensor, place_B: Tensor) -> Tensor:
    """Which of ``length`` rows or columns a rectangle covers, bool (B, length)."""
    least, most = _ERASE_SIDES
    size_B1 = (size_B * (most - least) + least)[:, None] * length
    start_B1 = place_B[:, None] * (length - size_B1)
    at = torch.arange(length, device=size_B.device)
    return (at >= start_B1) & (at < start_B1 + size_B1)

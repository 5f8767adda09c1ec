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
from facescale.data.loading.degrade import blur, erase, lower_resolution, mask, resize_down
from facescale.ops import normalise

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of JPEG's and Pillow's grey
# RGB to brightness and two colour axes, which a hue turns (NTSC's YIQ)
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


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
    HUE = auto()
    BLUR = auto()
    BLUR_SIGMA = auto()
    RESIZE_DOWN = auto()
    RESIZE_SIDE = auto()
    MASK = auto()
    MASK_TOP = auto()
    MASK_RED = auto()
    MASK_GREEN = auto()
    MASK_BLUE = auto()


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
    the centre (bilinear); brightness, contrast, colourfulness, hue, grey; a face mask; Gaussian blur;
    resize-down and low resolution (shrunk and enlarged again); a grey rectangle. What moves in from outside
    is black, as around aligned faces. The last five: `facescale.data.loading.degrade`.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config

    def __call__(self, images_BHW3: Tensor, random_BR: Tensor) -> Tensor:
        """Augment and normalise a batch."""
        c = self._config
        if c.flip or c.shift:
            images_BHW3 = _flip_and_shift(images_BHW3, random_BR, c.flip, c.shift)
        geometry = c.scale > 0 or c.rotate > 0
        colour = max(c.brightness, c.contrast, c.saturation, c.hue, c.grey) > 0
        degrading = max(c.mask, c.blur, c.resize_down, c.low_resolution, c.erase) > 0
        if not (geometry or colour or degrading):
            return normalise(images_BHW3)
        x_B3HW = images_BHW3.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        if geometry:
            x_B3HW = _zoom_and_turn(x_B3HW, random_BR, c.scale, c.rotate)
        if colour:
            x_B3HW = _recolour(x_B3HW, random_BR, c)
        if degrading:
            x_B3HW = _degraded(x_B3HW, random_BR, c)
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

    With luma weights w: y = b x; y = s y + (1 - s) w.y; y = k y + (1 - k) mean(w.y), all linear in x. A hue
    turns the two colour axes of YIQ and leaves w.y as it is.
    """
    luma_3 = x_B3HW.new_tensor(_LUMA)
    brightness_B11 = 1 + _signed(random_BR, _Column.BRIGHTNESS, c.brightness)[..., 0]
    contrast_B11 = 1 + _signed(random_BR, _Column.CONTRAST, c.contrast)[..., 0]
    colour_B11 = 1 + _signed(random_BR, _Column.SATURATION, c.saturation)[..., 0]
    colour_B11 = colour_B11 * (random_BR[:, _Column.GREY] >= c.grey)[:, None, None]
    matrix_B33 = colour_B11 * torch.eye(3, device=x_B3HW.device) + (1 - colour_B11) * luma_3
    if c.hue:
        matrix_B33 = matrix_B33 @ _hue_matrix(_signed(random_BR, _Column.HUE, c.hue)[:, 0, 0, 0])
    mean_B11 = (x_B3HW.mean(dim=(2, 3)) @ luma_3)[:, None, None]
    y = torch.baddbmm(
        (1 - contrast_B11) * brightness_B11 * mean_B11,
        contrast_B11 * brightness_B11 * matrix_B33,
        x_B3HW.flatten(2),
    )
    return y.clamp_(0, 255).view(x_B3HW.shape)


def _hue_matrix(turn_B: Tensor) -> Tensor:
    """RGB -> RGB with the colours turned by a share of the circle, (B, 3, 3)."""
    to_yiq = torch.tensor(_YIQ, device=turn_B.device)
    angle = 2 * torch.pi * turn_B
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turned_B33 = torch.stack([zero + 1, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    matrix_B33: Tensor = torch.linalg.inv(to_yiq) @ turned_B33 @ to_yiq
    return matrix_B33


def _degraded(x_B3HW: Tensor, random_BR: Tensor, c: AugmentConfig) -> Tensor:
    """What takes detail away, in the order of the class's description."""

    def chosen(column: _Column, probability: float) -> Tensor:
        return random_BR[:, column] < probability

    def numbers(first: _Column, last: _Column) -> Tensor:
        return random_BR[:, first : last + 1]

    if c.mask:
        colour_B3 = numbers(_Column.MASK_RED, _Column.MASK_BLUE)
        x_B3HW = mask(x_B3HW, chosen(_Column.MASK, c.mask), random_BR[:, _Column.MASK_TOP], colour_B3)
    if c.blur:
        x_B3HW = blur(x_B3HW, chosen(_Column.BLUR, c.blur), random_BR[:, _Column.BLUR_SIGMA])
    if c.resize_down:
        side_B = random_BR[:, _Column.RESIZE_SIDE]
        x_B3HW = resize_down(x_B3HW, chosen(_Column.RESIZE_DOWN, c.resize_down), side_B)
    if c.low_resolution:
        side_B = random_BR[:, _Column.LOW_SIDE]
        x_B3HW = lower_resolution(x_B3HW, chosen(_Column.LOW_RESOLUTION, c.low_resolution), side_B)
    if c.erase:
        size_B2 = numbers(_Column.ERASE_HEIGHT, _Column.ERASE_WIDTH)
        place_B2 = numbers(_Column.ERASE_Y, _Column.ERASE_X)
        x_B3HW = erase(x_B3HW, chosen(_Column.ERASE, c.erase), size_B2, place_B2)
    return x_B3HW

"""Normalisation and augmentation on the device."""

import numpy as np
import pytest
import torch
from torch import Tensor

from facescale.config import AugmentConfig
from facescale.data.loading.augment import NUM_RANDOM, Augment, normalise
from facescale.data.sampling.counter_rng import uniform

FLIP, SHIFT_X, SHIFT_Y = 0, 1, 2
EVERYTHING = AugmentConfig(
    shift=3,
    scale=0.1,
    rotate=10,
    brightness=0.2,
    contrast=0.2,
    saturation=0.3,
    grey=0.3,
    low_resolution=0.5,
    erase=0.5,
    hue=0.2,
    mask=0.3,
    blur=0.5,
    resize_down=0.5,
)


def random(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(uniform(NUM_RANDOM, seed, np.arange(count)))


@pytest.fixture
def images(make_picture) -> Tensor:
    return torch.from_numpy(np.stack([make_picture(i) for i in range(12)]))


def pixels(x_B3HW: Tensor) -> Tensor:
    """Back to uint8 (B, H, W, 3)."""
    return (x_B3HW * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1)


def plain(**options) -> Augment:
    return Augment(AugmentConfig(**{"flip": False} | options))


def test_normalised_pixels_are_centred_and_scaled_in_channels_last_memory(images: Tensor):
    x = normalise(images)
    assert x.dtype == torch.float32
    assert x.shape == (12, 3, 24, 24)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, ((images.permute(0, 3, 1, 2).double() - 127.5) / 127.5).float())
    assert torch.equal(
        normalise(torch.tensor([0, 255, 51]).byte().view(1, 1, 1, 3)).flatten(), torch.tensor([-1, 1, -0.6])
    )


@pytest.mark.parametrize("augment", [plain(), Augment(AugmentConfig()), Augment(EVERYTHING)])
def test_the_images_of_the_batch_are_left_as_they_are(images: Tensor, augment: Augment):
    before = images.clone()
    x = augment(images, random(12))
    assert torch.equal(images, before)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x.abs().max() < 1.00001


def test_nothing_asked_for_is_nothing_done(images: Tensor):
    assert torch.equal(plain()(images, random(12)), normalise(images))


def test_half_of_the_images_are_mirrored(images: Tensor):
    numbers = random(12)
    x = Augment(AugmentConfig())(images, numbers)
    mirrored = numbers[:, FLIP] < 0.5
    assert 0 < mirrored.sum() < 12
    assert torch.equal(x[mirrored], normalise(images.flip(2))[mirrored])
    assert torch.equal(x[~mirrored], normalise(images)[~mirrored])
    assert abs((random(10_000)[:, FLIP] < 0.5).float().mean() - 0.5) < 0.02


def test_shifts_move_by_whole_pixels_and_bring_in_black(images: Tensor):
    numbers = random(12)
    got = pixels(Augment(AugmentConfig(shift=3))(images, numbers))
    for b in range(12):
        expected = images[b].flip(1) if numbers[b, FLIP] < 0.5 else images[b]
        padded = torch.zeros(30, 30, 3, dtype=torch.uint8)
        padded[3:27, 3:27] = expected
        y, x = int(numbers[b, SHIFT_Y] * 7), int(numbers[b, SHIFT_X] * 7)
        assert torch.equal(got[b], padded[y : y + 24, x : x + 24])


def test_every_shift_is_as_likely_and_none_goes_too_far(images: Tensor):
    numbers = torch.zeros(7, NUM_RANDOM)
    numbers[:, SHIFT_X] = torch.arange(7) / 7 + 0.01
    numbers[:, SHIFT_Y] = 0.5
    one = torch.zeros(7, 24, 24, 3, dtype=torch.uint8)
    one[:, 12, 12] = 255
    where = pixels(plain(shift=3)(one, numbers))[..., 0].flatten(1).argmax(1)
    assert (where // 24 == 12).all()
    assert (where % 24).tolist() == [15, 14, 13, 12, 11, 10, 9]
    numbers[:] = 1 - 2**-24
    assert plain(shift=56)(images[:7], numbers).shape == (7, 3, 24, 24)


@pytest.mark.parametrize(
    "augment", [Augment(AugmentConfig(shift=2)), Augment(EVERYTHING)], ids=["shift and flip", "everything"]
)
def test_an_image_is_augmented_the_same_in_any_batch(images: Tensor, augment: Augment):
    numbers = random(12)
    whole = augment(images, numbers)
    parts = torch.cat([augment(images[i : i + 5], numbers[i : i + 5]) for i in (0, 5, 10)])
    assert torch.allclose(whole, parts, atol=1e-5)
    assert not torch.allclose(whole, augment(images, random(12, seed=1)), atol=0.1)


def test_turning_and_zooming_by_nothing_changes_nothing(images: Tensor):
    numbers = random(12)
    numbers[:, 3:5] = 0.5
    assert torch.allclose(plain(scale=0.3, rotate=40)(images, numbers), normalise(images), atol=1e-4)


def test_a_quarter_of_a_turn_is_45_degrees_twice():
    numbers = torch.full((1, NUM_RANDOM), 0.5)
    numbers[:, 4] = 1  # the largest angle
    dot = torch.zeros(1, 25, 25, 3, dtype=torch.uint8)
    dot[:, 12, 17:20] = 255  # to the right of the centre
    turn = plain(rotate=45)
    once = turn(dot, numbers)
    twice = pixels(turn(pixels(once), numbers))[0, :, :, 0].float()
    y, x = (twice > 40).nonzero().float().mean(dim=0)
    assert abs(x - 12) < 0.6
    assert abs(abs(y - 12) - 6) < 0.6


def test_zoom_scales_about_the_centre():
    numbers = torch.full((1, NUM_RANDOM), 0.5)
    numbers[:, 3] = 1
    square = torch.zeros(1, 24, 24, 3, dtype=torch.uint8)
    square[:, 8:16, 8:16] = 200
    larger = pixels(plain(scale=0.5)(square, numbers))[0, :, :, 0]
    assert (larger > 100).sum() == 144
    assert (larger[6:18, 6:18] > 100).all()


def test_brightness_scales_all_pixels_by_one_factor(images: Tensor):
    numbers = random(12)
    x = plain(brightness=0.3)(images, numbers) * 127.5 + 127.5
    factor = 1 + 0.3 * (2 * numbers[:, 5] - 1)
    expected = (images.permute(0, 3, 1, 2) * factor[:, None, None, None]).clamp(0, 255)
    assert torch.allclose(x, expected, atol=1e-3)


def test_contrast_keeps_the_mean_brightness(images: Tensor):
    x = pixels(plain(contrast=0.3)(images, random(12))).float()
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose((x @ luma).mean((1, 2)), (images.float() @ luma).mean((1, 2)), atol=1)
    assert ((x.std((1, 2, 3)) / images.float().std((1, 2, 3)) - 1).abs() > 0.02).any()


def test_grey_pictures_have_equal_channels_and_their_own_brightness(images: Tensor):
    numbers = random(12)
    x = plain(grey=0.4)(images, numbers)
    grey = numbers[:, 8] < 0.4
    assert 0 < grey.sum() < 12
    assert (x[grey].amax(1) - x[grey].amin(1)).abs().max() < 1e-5
    assert torch.allclose(x[~grey], normalise(images)[~grey], atol=1e-5)
    luma = normalise(images) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    assert torch.allclose(x[grey][:, 0], luma[grey].sum(1), atol=1e-4)


def test_saturation_moves_colours_but_not_brightness(images: Tensor):
    x = plain(saturation=0.5)(images, random(12)) * 127.5 + 127.5
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    original = images.permute(0, 3, 1, 2).float()
    inside = ((x > 0.5) & (x < 254.5)).all(1)
    assert torch.allclose((x * weights).sum(1)[inside], (original * weights).sum(1)[inside], atol=0.01)
    assert (x - original).abs().max() > 5


def test_low_resolution_takes_detail_from_the_chosen_only():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8))
    numbers = random(12)
    x = plain(low_resolution=0.4)(noise, numbers)
    chosen = numbers[:, 9] < 0.4
    assert 0 < chosen.sum() < 12
    assert torch.equal(x[~chosen], normalise(noise)[~chosen])
    contrast = x.std((1, 2, 3)) / normalise(noise).std((1, 2, 3))
    assert (contrast[chosen] < 0.9).all()
    assert contrast[chosen][numbers[chosen, 10].argmin()] < 0.35


def test_erasing_blanks_one_rectangle_of_the_chosen(images: Tensor):
    numbers = random(12)
    x = plain(erase=0.5)(images, numbers)
    blank = (x == 0).all(1)
    chosen = numbers[:, 11] < 0.5
    assert 0 < chosen.sum() < 12
    assert not blank[~chosen].any()
    assert torch.equal(x.movedim(1, 3)[~blank], normalise(images).movedim(1, 3)[~blank])
    for one in blank[chosen]:
        rows, columns = one.any(1).sum(), one.any(0).sum()
        assert one.sum() == rows * columns
        assert 2 <= rows <= 13
        assert 2 <= columns <= 13


HUE, BLUR, SIGMA, DOWN, SIDE, MASK, TOP = range(16, 23)
RED = 23


def test_a_hue_keeps_brightness_and_greys_and_comes_back(images: Tensor):
    numbers = random(12)
    smooth = (images // 4 + 96).byte()  # far from the ends of the scale
    x = plain(hue=0.1)(smooth, numbers) * 127.5 + 127.5
    luma = torch.tensor([0.299, 0.587, 0.114])
    before = smooth.permute(0, 3, 1, 2).float()
    assert torch.allclose(
        torch.einsum("bchw,c->bhw", x, luma), torch.einsum("bchw,c->bhw", before, luma), atol=0.1
    )
    assert (x - before).abs().max() > 3
    grey = torch.full((1, 24, 24, 3), 90, dtype=torch.uint8)
    assert torch.equal(pixels(plain(hue=0.5)(grey, random(1))), grey)
    numbers[:, HUE] = 0.75  # half of the largest: a quarter of the circle, four times is none
    turned = before
    for _ in range(4):
        turned = plain(hue=0.5)(turned.round().byte().permute(0, 2, 3, 1), numbers) * 127.5 + 127.5
    assert (turned - before).abs().max() < 4


def test_a_blur_is_gaussian_and_leaves_others_alone(images: Tensor):
    numbers = random(12)
    numbers[:, BLUR] = torch.arange(12) % 2
    numbers[:, SIGMA] = 0.5
    x = plain(blur=0.5)(images, numbers)
    assert torch.allclose(x[1::2], normalise(images)[1::2], atol=1e-5)
    dot = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    dot[:, 56, 56] = 255
    seen = (plain(blur=1)(dot, torch.full((1, NUM_RANDOM), 0.5))[0, 0] + 1) / 2
    assert abs(seen.sum() - 1) < 1e-3
    distance = torch.arange(112) - 56
    variance = (seen.sum(0) * distance**2).sum()
    assert abs(variance.sqrt() - 1.2) < 0.05, "sigma is half-way from 0.4 to 2"


def test_a_smaller_picture_is_enlarged_again(images: Tensor):
    numbers = random(12)
    numbers[:, DOWN] = torch.arange(12) % 2
    numbers[:, SIDE] = 0
    x = plain(resize_down=0.5)(images, numbers)
    assert torch.equal(x[1::2], normalise(images)[1::2])
    small = torch.nn.functional.interpolate(
        images[::2].permute(0, 3, 1, 2).float(), [12, 12], mode="bilinear"
    )
    large = torch.nn.functional.interpolate(small, [24, 24], mode="bilinear")
    assert torch.allclose(x[::2], (large - 127.5) / 127.5, atol=1e-4)


def test_a_mask_covers_mouth_and_chin_in_one_colour(images: Tensor):
    white = torch.full((2, 112, 112, 3), 255, dtype=torch.uint8)
    numbers = torch.full((2, NUM_RANDOM), 0.5)
    numbers[1, MASK] = 0.9
    numbers[:, RED : RED + 3] = torch.tensor([0.2, 0.4, 0.6])
    seen = pixels(plain(mask=0.6)(white, numbers))
    assert torch.equal(seen[1], white[1])
    covered = (seen[0] == torch.tensor([51, 102, 153], dtype=torch.uint8)).all(-1)
    assert ((seen[0] == 255).all(-1) | covered).all()
    landmarks = {"eye": (51, 38), "eyes": (51, 73), "mouth": (92, 41), "corner": (92, 70), "chin": (110, 56)}
    assert [bool(covered[place]) for place in landmarks.values()] == [False, False, True, True, True]
    assert 0.15 < covered.float().mean() < 0.35
    numbers[:, TOP] = 0
    assert (pixels(plain(mask=0.6)(white, numbers))[0] != 255).sum() > (seen[0] != 255).sum()


@pytest.mark.parametrize("name", ["hue", "blur", "resize_down", "mask"])
def test_each_switch_is_off_by_default_and_changes_the_picture(images: Tensor, name: str):
    assert getattr(AugmentConfig(), name) == 0
    x = plain(**{name: 0.5})(images, random(12))
    assert not torch.equal(x, normalise(images)) and x.abs().max() < 1.00001

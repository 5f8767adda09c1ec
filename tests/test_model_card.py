"""What travels with the weights."""

import math

import pytest
import torch

from facescale.model_card import Card, Contract, Graph, Threshold


def test_the_default_contract_maps_pixels_to_minus_one_to_one():
    images = torch.tensor([0, 127, 255, 51], dtype=torch.uint8).expand(1, 2, 2, 3, 4)[..., 0].contiguous()
    images[0, 0, 0] = torch.tensor([0, 51, 255], dtype=torch.uint8)
    x = Contract().normalise(images)
    assert x.shape == (1, 3, 2, 2)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([-1.0, -0.6, 1.0]))


def test_a_bgr_contract_swaps_the_colours():
    images = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    rgb, bgr = Contract().normalise(images), Contract(colour="BGR").normalise(images)
    assert torch.equal(bgr, rgb.flip(1))


def test_a_contract_survives_the_way_through_a_dict():
    contract = Contract(size=224, colour="BGR", mean=0.0, std=255.0, flip=False, resize="area")
    assert Contract.from_dict(contract.to_dict()) == contract


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 8}, "size = 8 must be a whole number of pixels, 16 to 1024"),
        ({"size": True}, "size = True must be a whole number"),
        ({"size": 112.0}, "size = 112.0 must be a whole number"),
        ({"colour": "rgb"}, "colour = 'rgb' must be 'RGB' or 'BGR'"),
        ({"mean": "127"}, "mean = '127' must be a number"),
        ({"mean": math.nan}, "mean = nan must be a number"),
        ({"std": 0}, "std = 0 must be a number above 0"),
        ({"flip": 1}, "flip = 1 must be true or false"),
        ({"resize": "linear"}, "resize = 'linear' must be 'none' or 'area'"),
    ],
)
def test_a_contract_out_of_range_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Contract(**values)


def test_an_unknown_key_of_a_contract_is_answered_with_the_nearest_name():
    values = Contract().to_dict() | {"color": "RGB"}
    with pytest.raises(ValueError, match=r"unknown key 'color' \(did you mean 'colour'\?\)"):
        Contract.from_dict(values)


def test_a_contract_written_before_there_was_a_resize_rule_refuses_other_sizes():
    values = Contract().to_dict()
    assert "resize" not in values
    assert Contract.from_dict(values).resize == "none"


def test_a_contract_with_a_key_missing_is_refused():
    values = Contract().to_dict()
    del values["mean"], values["flip"]
    with pytest.raises(ValueError, match="mean, flip not stated"):
        Contract.from_dict(values)


def test_a_threshold_must_be_finite():
    with pytest.raises(ValueError, match="cosine = inf must be a finite number"):
        Threshold(math.inf, 0.1, 0.2, "lfw")


def test_a_card_survives_the_way_through_json():
    card = Card(
        Contract(flip=False),
        {"name": "mbf", "embedding_size": 128, "options": {}},
        {1e-3: Threshold(0.3, 0.28, 0.33, "lfw"), 1e-4: Threshold(0.4, 0.3, 0.5, "lfw")},
        {"licence": "CC-BY-4.0"},
        "ab" * 16,
        Graph(uint8_input=True),
    )
    assert Card.from_json(card.to_json()) == card
    assert Card.from_json(Card().to_json()) == Card()


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"format": 1}', '{"format": 1, "contract": 5}'])
def test_a_damaged_card_is_refused(text):
    with pytest.raises(ValueError, match="its card is damaged"):
        Card.from_json(text)


def test_a_card_of_a_later_version_asks_for_an_upgrade():
    text = Card().to_json().replace('"format": 1', '"format": 2')
    with pytest.raises(ValueError, match="format 2, this version reads 1; upgrade facescale"):
        Card.from_json(text)

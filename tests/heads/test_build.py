"""``heads.build``: what every head does with its arguments."""

import pytest
import torch

from facescale import heads, margins

OPTIONS = {"full": {}, "partial_fc": {"rate": 0.5}, "attfc": {"size": 4}, "f2c": {"size": 4}}


@pytest.mark.parametrize("name", heads.HEADS)
def test_two_heads_of_one_margin_start_alike_and_leave_it_as_it_was(name: str) -> None:
    margin = margins.build("uniface")
    before = {key: value.clone() for key, value in margin.state_dict().items()}
    first = heads.build(name, 20, 8, margin, **OPTIONS[name])
    start = first.margin.bias.item()
    with torch.no_grad():
        first.margin.bias.add_(5)  # as training does
    second = heads.build(name, 20, 8, margin, **OPTIONS[name])
    assert second.margin.bias.item() == start != 0
    assert all(torch.equal(value, before[key]) for key, value in margin.state_dict().items())


def test_a_margin_that_a_head_refuses_is_named_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"margin RobustFace does not work with head 'attfc': it finds"):
        heads.build("attfc", 20, 8, "robustface")

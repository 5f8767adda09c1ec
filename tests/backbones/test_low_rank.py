"""Low-rank adapters: they begin as nothing, train alone, and merge into the weights."""

import copy

import pytest
import torch
from torch import Tensor, nn

from facescale import backbones
from facescale.backbones.low_rank import (
    Adapted,
    LowRankLinear,
    adapter_state,
    add_adapters,
    load_own,
    load_plain,
    merged,
    own_state,
    plain_state,
)


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    return backbones.build("vit_t", 32, input_size=27).eval()


def faces(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 27, 27, generator=torch.Generator().manual_seed(1))


def disturbed(net: nn.Module) -> nn.Module:
    """The adapters as a training leaves them: not zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in adapter_state(net).values():
            value += 0.05 * torch.randn(value.shape, generator=generator)
    return net


def test_the_layer_is_the_equation() -> None:
    layer = LowRankLinear(nn.Linear(5, 4), rank=2)
    nn.init.normal_(layer.up)
    x = torch.randn(3, 5)
    expected = x @ layer.weight.T + layer.bias + (x @ layer.down.T) @ layer.up.T
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(("layers", "count"), [("attention", 24), ("attention+mlp", 48)])
def test_new_adapters_change_nothing_and_train_alone(layers: Adapted, count: int) -> None:
    net = small_vit()
    before, names = net(faces()), list(net.state_dict())
    add_adapters(net, 4, layers)
    assert torch.equal(net(faces()), before)
    assert sum(isinstance(module, LowRankLinear) for module in net.modules()) == count
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == set(adapter_state(net)) and len(trained) == 2 * count
    assert list(plain_state(net)) == names, "the plain weights keep their names"


def test_merged_weights_compute_what_the_adapters_do() -> None:
    net, plain = small_vit(), small_vit()
    add_adapters(net, 4, "attention+mlp")
    before = net(faces())
    disturbed(net)
    plain.load_state_dict(merged(plain_state(net), adapter_state(net)))
    assert not torch.allclose(net(faces()), before, atol=1e-2), "the adapters have an effect"
    torch.testing.assert_close(plain(faces()), net(faces()), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_needs_the_adapters_alone() -> None:
    net = small_vit()
    add_adapters(net, 2)
    other = copy.deepcopy(net)
    disturbed(net)
    load_own(other, own_state(net))
    assert torch.equal(other(faces()), net(faces()))
    assert sum(x.numel() for x in own_state(net).values()) < 0.02 * sum(p.numel() for p in net.parameters())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_own(other, {"x": torch.zeros(1)})


def test_plain_weights_load_beside_the_adapters() -> None:
    net = small_vit()
    add_adapters(net, 2)
    disturbed(net)
    adapters = {name: value.clone() for name, value in adapter_state(net).items()}
    torch.manual_seed(5)
    state = backbones.build("vit_t", 32, input_size=27).state_dict()
    load_plain(net, state)
    assert all(torch.equal(value, state[name]) for name, value in plain_state(net).items())
    assert all(torch.equal(value, adapters[name]) for name, value in adapter_state(net).items())


def test_a_network_without_adapters_is_its_own_state() -> None:
    net = nn.Linear(2, 2)
    assert own_state(net).keys() == net.state_dict().keys() and adapter_state(net) == {}


def test_a_convolutional_network_cannot_have_adapters() -> None:
    net = backbones.build("mbf_s", 32, input_size=56)
    message = r"finetune.adapters = 8: this backbone has no attention layers .* \(vit_t to vit_h, timm:vit_"
    with pytest.raises(ValueError, match=message):
        add_adapters(net, 8)


def test_a_rank_must_be_low() -> None:
    with pytest.raises(ValueError, match=r"finetune.adapters = 256 is not a low rank: .* from 1 to 255"):
        add_adapters(small_vit(), 256)


@pytest.mark.parametrize("part", ["missing", "shape", "layer"])
def test_adapters_of_another_network_are_refused(part: str) -> None:
    net = small_vit()
    add_adapters(net, 2)
    adapters = dict(adapter_state(net))
    first = next(iter(adapters))
    if part == "missing":
        del adapters[first]
    elif part == "shape":
        adapters[first] = torch.zeros(2, 7)
    else:
        adapters = {f"x.{name}": value for name, value in adapters.items()}
    with pytest.raises(ValueError, match=r"the adapters of '\S+' do not fit a layer of the network"):
        merged(plain_state(net), adapters)


def test_a_transformer_of_timm_takes_adapters() -> None:
    pytest.importorskip("timm")
    net = backbones.build("timm:vit_tiny_patch16_224", 32, input_size=32).eval()
    image = torch.randn(1, 3, 32, 32)
    before = net(image)
    add_adapters(net, 4)
    assert torch.equal(net(image), before)
    assert len(adapter_state(net)) == 48

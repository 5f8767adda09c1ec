"""A saved network gives the embeddings of the network that was saved, or says what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import facescale
from facescale import backbones
from facescale.data.loading.decode import resized
from facescale.inference.model import Model
from facescale.inference.weights import load_model, save_model
from facescale.model_card import KEY, Card, Contract, Threshold

SPEC = {"name": "mbf_s", "embedding_size": 64, "options": {}}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = backbones.build("mbf_s", 64)
    network(
        torch.randn(8, 3, 112, 112)
    )  # gives batch norm statistics that fit, so that the numbers are lively
    return network.eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, network.state_dict(), SPEC, Contract())
    return path


class Mean(nn.Module):
    """Embeds an image as its mean in each of the three channels, left half weighted double."""

    embedding_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return (2 * x[..., : x.shape[-1] // 2].sum((2, 3)) + x[..., x.shape[-1] // 2 :].sum((2, 3))) / 100


def mean_model(**contract) -> Model:
    return Model.of(Mean().eval(), Card(Contract(size=16, **contract)), "cpu")


def half_red() -> np.ndarray:
    """One image: the left half pure red, the right half black."""
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, :, :8, 0] = 255
    return image


def test_a_loaded_model_gives_the_embeddings_of_the_saved_network(network, weights, images):
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    with torch.no_grad():
        expected = F.normalize(network(x) + network(x.flip(-1)))
    embeddings = load_model(weights, "cpu").embed(images)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (5, 64)
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_raw_embeddings_are_those_of_the_one_view(network, weights, images):
    with torch.no_grad():
        expected = network(Contract().normalise(torch.from_numpy(images)))
    raw = load_model(weights, "cpu").embed_raw(torch.from_numpy(images))
    np.testing.assert_allclose(raw, expected.numpy(), atol=1e-4 * expected.abs().max())


def test_embeddings_do_not_depend_on_the_batch_size(weights, images):
    model = load_model(weights, "cpu")
    np.testing.assert_allclose(model.embed(images, batch_size=2), model.embed(images), atol=1e-5)


def test_no_images_give_no_embeddings(weights):
    assert load_model(weights, "cpu").embed(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 64)


def test_flip_adds_the_mirrored_view_before_normalising():
    plain, fused = (mean_model(flip=flip, mean=0.0, std=255.0) for flip in (False, True))
    image = half_red()
    np.testing.assert_allclose(plain.embed_raw(image), [[2.56, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(plain.embed_raw(image[:, :, ::-1]), [[1.28, 0, 0]], rtol=1e-6)
    image[0, :, :8, 1] = 51  # a second channel, so that the direction tells sums from means of unit vectors
    image[0, :, 8:, 2] = 255
    views = plain.embed_raw(image) + plain.embed_raw(image[:, :, ::-1])
    np.testing.assert_allclose(fused.embed(image), views / np.linalg.norm(views), rtol=1e-6)
    assert fused.needs_flip
    assert not plain.needs_flip


def test_a_bgr_model_is_still_given_rgb_images():
    model = mean_model(colour="BGR", flip=False, mean=0.0, std=255.0)
    np.testing.assert_allclose(model.embed(half_red()), [[0, 0, 1]], atol=1e-6)


def test_embedding_leaves_the_mode_of_every_part_alone():
    module = Mean().train()
    module.norm.eval()  # frozen, as in fine-tuning
    Model.of(module, Card(Contract(size=16)), "cpu").embed(half_red())
    assert module.training
    assert not module.norm.training


def test_the_network_is_evaluated_without_gradient_and_in_evaluation_mode(network, images):
    network.train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    model = Model.of(network, Card(Contract(flip=False), SPEC), "cpu")
    assert not model.encoder(torch.from_numpy(images)).requires_grad
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name
    network.eval()


def test_bf16_embeddings_point_the_same_way(weights, images):
    exact, fast = (load_model(weights, "cpu", precision).embed(images) for precision in ("fp32", "bf16"))
    assert fast.dtype == np.float32
    assert (exact * fast).sum(1).min() > 0.995
    assert not np.array_equal(exact, fast)


def test_what_was_saved_with_the_weights_comes_back(network, tmp_path):
    thresholds = {1e-3: Threshold(0.31, 0.29, 0.34, "lfw")}
    contract = Contract(mean=0.0, std=255.0, flip=False)
    save_model(tmp_path / "m.safetensors", network.state_dict(), SPEC, contract, thresholds, {"step": 7})
    model = load_model(tmp_path / "m.safetensors", "cpu")
    assert model.contract == contract
    assert model.thresholds == thresholds
    assert model.info == {"step": 7}
    assert model.embedding_size == 64
    assert isinstance(model.module, type(network))


def test_the_same_model_is_the_same_file(network, tmp_path):
    for name in ("a", "b"):
        save_model(tmp_path / name, network.state_dict(), SPEC, Contract(), info={"x": 1, "y": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_fingerprint_follows_weights_and_contract_only(network, weights, tmp_path):
    def saved(state, contract=Contract(), **rest):  # noqa: B008
        save_model(tmp_path / "m", state, SPEC, contract, **rest)
        return load_model(tmp_path / "m", "cpu").fingerprint

    state = network.state_dict()
    same = load_model(weights, "cpu").fingerprint
    assert len(same) == 32
    counters = {k: v + 1 if k.endswith("num_batches_tracked") else v for k, v in state.items()}
    assert saved(counters, info={"step": 9}, thresholds={0.1: Threshold(0, 0, 0, "x")}) == same
    assert Model.of(network, Card(Contract(), SPEC), "cpu").fingerprint == same
    name = next(name for name in state if name.endswith("running_var"))
    assert saved({**state, name: state[name] * 1.0001}) != same
    assert saved(state, Contract(flip=False)) != same


def test_a_contract_that_resizes_takes_images_of_any_size(network):
    model = Model.of(Mean().eval(), Card(Contract(size=16, resize="area")), "cpu")
    images = [
        np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((32, 20), (9, 9))
    ]
    expected = model.embed(np.stack([resized(image, 16, 16) for image in images]))
    assert np.array_equal(model.embed(images), expected)
    assert np.array_equal(model.embed(images[0][None]), expected[:1])
    assert np.array_equal(model.embed(torch.from_numpy(images[1])[None]), expected[1:])
    with pytest.raises(ValueError, match=r"images have shape \(1, 9, 3\)"):
        model.embed([images[1][0]])


def test_the_resize_rule_is_no_part_of_the_fingerprint(network):
    assert (
        Model.of(network, Card(Contract(resize="area"), SPEC), "cpu").fingerprint
        == Model.of(network, Card(Contract(), SPEC), "cpu").fingerprint
    )


def test_a_failed_save_leaves_the_old_file(network, weights, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights.read_bytes())
    with pytest.raises(TypeError):
        save_model(path, network.state_dict(), SPEC, Contract(), info={"not JSON": object()})
    assert path.read_bytes() == weights.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), "images are float32, not uint8"),
        (torch.zeros(1, 16, 16, 3), "images are float32, not uint8"),
        (np.zeros((16, 16, 3), np.uint8), r"shape \(16, 16, 3\), not \(B, 16, 16, 3\); pass a batch"),
        (np.zeros((1, 3, 16, 16), np.uint8), r"shape \(1, 3, 16, 16\), not \(B, 16, 16, 3\)"),
        (np.zeros((1, 20, 16, 3), np.uint8), "images are 16x20 pixels, the model takes 16x16; align"),
    ],
)
def test_images_that_do_not_fit_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        mean_model().embed(array)


def test_read_only_and_strided_pixels_are_taken_without_a_warning(recwarn):
    image = np.broadcast_to(half_red(), (3, 16, 16, 3))[::2]
    assert mean_model().embed(image).shape == (2, 3)
    assert not recwarn.list


def test_an_impossible_batch_size_is_refused():
    with pytest.raises(ValueError, match="batch_size = 0 must be at least 1"):
        mean_model().embed(half_red(), batch_size=0)


def test_an_unknown_precision_is_refused(weights):
    with pytest.raises(ValueError, match=r"unknown precision 'bf61' \(did you mean 'bf16'\?\)"):
        load_model(weights, "cpu", "bf61")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(weights, device):
    with pytest.raises(ValueError, match=f"device '{device}'.*auto"):
        facescale.load(weights, device)


def test_a_contract_of_another_image_size_than_the_network_is_refused(network, tmp_path):
    save_model(tmp_path / "m", network.state_dict(), SPEC, Contract(size=128))
    with pytest.raises(ValueError, match="contract says 128 pixels but the network takes 112"):
        load_model(tmp_path / "m", "cpu")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors"])
def test_a_checkpoint_of_another_project_is_known_by_its_keys(weights, images, tmp_path, suffix):
    path = tmp_path / f"backbone{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(load_file(weights), path)
    model = facescale.load(path, "cpu")
    ours = load_model(weights, "cpu")
    assert model.info == {"origin": "insightface"}
    assert model.fingerprint == ours.fingerprint
    np.testing.assert_array_equal(model.embed(images), ours.embed(images))


def test_a_checkpoint_of_an_unknown_network_is_refused(tmp_path):
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "m.pth")
    with pytest.raises(ValueError, match="not a supported network"):
        facescale.load(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (Card(), "its card does not name a backbone"),
        (Card(backbone={"name": "mbf_s"}), "its card does not name a backbone"),
        (Card(backbone={**SPEC, "name": "mbf_x"}), "unknown backbone 'mbf_x'"),
        (
            Card(backbone={**SPEC, "embedding_size": 32}),
            "they are not those of the mbf_s that the card names .*instead of",
        ),
        (
            Card(backbone={**SPEC, "embedding_size": "many"}),
            "embedding_size is 'many'; it must be a positive whole number",
        ),
    ],
)
def test_weights_that_do_not_fit_their_card_are_refused(weights, tmp_path, card, message):
    save_file(load_file(weights), tmp_path / "m", {KEY: card.to_json()})
    with pytest.raises(ValueError, match=f"(?s)cannot use the weights .*{message}"):
        load_model(tmp_path / "m", "cpu")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "m.safetensors").write_text("not tensors")
    with pytest.raises(ValueError, match=r"cannot read the weights .*m\.safetensors"):
        facescale.load(tmp_path / "m.safetensors")
    (tmp_path / "m.txt").write_text("not tensors")
    with pytest.raises(ValueError, match="is not a supported weights file"):
        facescale.load(tmp_path / "m.txt")
    with pytest.raises(ValueError, match="does not exist; name a run folder or a weights file"):
        facescale.load(tmp_path / "absent.safetensors")


def test_a_run_loads_its_best_checkpoint_and_a_checkpoint_folder_itself(network, weights, tmp_path):
    for step in (10, 20):
        folder = tmp_path / "checkpoints" / f"step_{step:08d}"
        save_model(folder / "model.safetensors", network.state_dict(), SPEC, Contract(), info={"step": step})
    (tmp_path / "config.toml").touch()
    assert facescale.load(tmp_path).info["step"] == 20
    (tmp_path / "checkpoints" / "best.json").write_text(json.dumps({"step": 10, "name": "a", "value": 1}))
    assert facescale.load(str(tmp_path)).info["step"] == 10
    assert facescale.load(tmp_path / "checkpoints" / "step_00000020").info["step"] == 20
    with pytest.raises(ValueError, match="is not a run folder"):
        facescale.load(tmp_path / "checkpoints")


def test_importing_facescale_does_not_import_torch_until_a_part_is_used():
    code = (
        "import sys, facescale; assert 'torch' not in sys.modules; assert 'load' in dir(facescale);"
        "facescale.margins.build('arcface'); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", facescale.__all__)
def test_every_name_that_facescale_offers_is_there(name):
    assert getattr(facescale, name).__name__ in (name, f"facescale.{name}")


def test_an_unknown_part_of_facescale_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'facescale' has no attribute 'laod'"):
        _ = facescale.laod

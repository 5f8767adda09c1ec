"""Fine-tuning with low-rank adapters: small checkpoints, exact resumes, whole networks elsewhere."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from facescale.config import load_config
from facescale.distributed import Dist
from facescale.export.write import export
from facescale.inference.load import load
from facescale.inference.weights import save_model
from facescale.plan.check import check_components
from facescale.plan.memory import backbone_bytes
from facescale.plan.plan import Counts, make_plan
from facescale.recipes.finetune import finetune_config
from facescale.run import RunDir
from facescale.train import train
from tests.tiny import train_steps
from tests.train.test_finetune import OLD, draw, settings

VIT = ("backbone.name=vit_t", "backbone.input_size=36", "data.resize=true", "train.precision=fp32")
FACES = np.random.default_rng(0).integers(0, 256, (3, 36, 36, 3), np.uint8)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small transformer over four people."""
    folder = tmp_path_factory.mktemp("old_vit")
    return train(load_config(None, settings(draw(folder / "faces", OLD), *VIT)), folder / "run").run.path


@pytest.fixture(scope="module")
def words(old: Path) -> list[str]:
    """Settings of a run that goes on from it with adapters; four steps."""
    data = draw(old.parent / "more", ("cara", "eve"))
    more = [*VIT, f"train.init={old}", "finetune.head=extend", "finetune.adapters=2", "train.batch_size=6"]
    return settings(data, *more, "train.duration=4 steps", "optim.lr=0.5")


@pytest.fixture(scope="module")
def adapted(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """That run, finished."""
    return train(load_config(None, words), tmp_path_factory.mktemp("adapted") / "run").run


def test_checkpoints_hold_the_adapters_alone(old: Path, adapted: RunDir) -> None:
    whole, small = RunDir(old).model_path(), adapted.model_path()
    assert all(name.endswith((".down", ".up")) for name in load_file(small))
    assert small.stat().st_size < 0.05 * whole.stat().st_size
    state = Path("state.pt")  # the trained network and the optimizer's averages
    assert (small.parent / state).stat().st_size < 0.1 * (whole.parent / state).stat().st_size


def test_the_network_that_they_belong_to_is_the_old_one(old: Path, adapted: RunDir) -> None:
    before = load_file(RunDir(old).model_path())
    kept = load_file(adapted.base)
    assert before.keys() == kept.keys() and all(torch.equal(kept[name], before[name]) for name in kept)
    after = load(adapted.path, "cpu").module.state_dict()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed and all(name.endswith(("attn.qkv.weight", "attn.proj.weight")) for name in changed)


def test_a_resumed_run_is_the_same_bit_for_bit(words: list[str], adapted: RunDir, tmp_path: Path) -> None:
    config = load_config(None, words)
    assert not train_steps(config, tmp_path / "run", 2).finished
    run = train(config, tmp_path / "run").run
    once, twice = load_file(adapted.model_path()), load_file(run.model_path())
    assert once.keys() == twice.keys() and all(torch.equal(once[name], twice[name]) for name in once)


def test_an_exported_file_has_the_adapters_merged(adapted: RunDir, tmp_path: Path) -> None:
    model = load(adapted.path, "cpu")
    graph = export(adapted.path, tmp_path / "face.onnx", unit_output=True, uint8_input=True)
    (out,) = onnxruntime.InferenceSession(str(graph.path)).run(None, {"images": FACES})
    np.testing.assert_allclose(out, model.embed(FACES), atol=1e-5)
    whole = export(adapted.path, tmp_path / "face.safetensors")
    (tmp_path / "away").mkdir()
    alone = shutil.copy(whole.path, tmp_path / "away")
    assert np.array_equal(load(alone, "cpu").embed(FACES), model.embed(FACES))
    assert load(alone, "cpu").fingerprint == model.fingerprint == graph.fingerprint


def test_the_results_of_a_run_know_the_model_by_its_fingerprint(words: list[str], tmp_path: Path) -> None:
    more = ["eval.sets.unseen=synthetic:pairs=20", "train.duration=2 steps"]
    run = train(load_config(None, [*words, *more]), tmp_path / "run").run
    (result,) = run.results.iterdir()
    assert load(run.path, "cpu").fingerprint in result.read_text()


def test_another_run_goes_on_from_one_with_adapters(
    words: list[str], adapted: RunDir, tmp_path: Path
) -> None:
    config = load_config(
        None, [*words, f"train.init={adapted.path}", "train.duration=1 steps", "optim.lr=1e-9"]
    )
    run = train(config, tmp_path / "run").run
    expected = load(adapted.path, "cpu").embed(FACES)
    np.testing.assert_allclose(load(run.path, "cpu").embed(FACES), expected, atol=1e-5)


def test_adapters_without_their_network_are_a_sentence(adapted: RunDir, tmp_path: Path) -> None:
    alone = shutil.copy(adapted.model_path(), tmp_path)
    with pytest.raises(ValueError, match=r"low-rank adapters alone, and the network .* facescale export RUN"):
        load(alone, "cpu")


@pytest.mark.parametrize("part", ["load", "train"])
def test_adapters_of_another_network_are_a_sentence(
    part: str, words: list[str], adapted: RunDir, tmp_path: Path
) -> None:
    run = RunDir(shutil.copytree(adapted.path, tmp_path / "run"))
    shutil.copy(RunDir(load_config(run.config).train.init).model_path(), run.base)
    state = load_file(run.base)
    state["pos_embed"] += 1
    card = load(adapted.path, "cpu").card
    save_model(run.base, state, card.backbone or {}, card.contract)
    message = {"load": "is not the network that the adapters", "train": "is not the network that this run"}
    with pytest.raises(ValueError, match=message[part]):
        load(run.path, "cpu") if part == "load" else train(load_config(None, words), run.path)


def test_adapters_need_a_transformer_and_a_run_to_start_from(old: Path, words: list[str]) -> None:
    config = load_config(None, [*words, "backbone.name=mbf_s", "backbone.input_size=32"])
    with pytest.raises(ValueError, match=r"finetune.adapters = 2: this backbone has no attention layers"):
        check_components(config)
    with pytest.raises(ValueError, match=r"\[finetune\] is for a run that starts from another one"):
        train(load_config(None, [*words, "train.init="]), old.parent / "none")


def test_the_command_trains_adapters_at_the_old_rate(old: Path) -> None:
    config = finetune_config(old, "more/", "extend", 1.0, [], [], adapters=4)
    assert (config.finetune.adapters, config.optim.lr) == (4, load_config(RunDir(old).config).optim.lr)
    assert finetune_config(old, "more/", "extend", 1.0, [], []).finetune.adapters == 0


def test_a_whole_network_may_follow_adapters(adapted: RunDir) -> None:
    config = finetune_config(adapted.path, "more/")
    assert (config.finetune.adapters, config.train.init) == (0, str(adapted.path))


def test_the_command_refuses_adapters_for_a_convolutional_network(
    facescale, tiny_run: Path, tmp_path: Path
) -> None:
    words = ["finetune", str(tiny_run), "more/", "--run", str(tmp_path / "run"), "--adapters", "4"]
    code, _, err = facescale(*words)
    assert code == 2 and "finetune.adapters = 4: this backbone has no attention layers" in err
    assert not (tmp_path / "run").exists()


def test_a_plan_counts_gradients_of_the_adapters_alone(words: list[str]) -> None:
    def planned(*more: str) -> tuple[int, int]:
        config = load_config(None, [*words, *more])
        needed = backbone_bytes(config, make_plan(config, Dist(), Counts(4, 12)))
        return needed.gradients, needed.own

    gradients, own = planned()
    assert gradients == own < 0.05 * planned("finetune.adapters=0")[0]

"""A damaged file of a run is noticed, named, and where another checkpoint is whole it goes on from there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import facescale
from facescale.checksums import DamageWarning
from facescale.config import load_config
from facescale.run import RunDir
from facescale.train import train
from tests.damage import dangling, made_a_folder
from tests.same_run import differences
from tests.wiring.toy import HEADS, SETTINGS, train_toy

Facescale = Callable[..., tuple[int, str, str]]

WORDS = ["checkpoint.every=2 steps", "checkpoint.keep=3", "eval.every=2 steps"]


def truncated(path: Path) -> None:
    replaced(path, path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * 0.7)] ^= 16
    replaced(path, content)


def emptied(path: Path) -> None:
    replaced(path, b"")


def zeroed(path: Path) -> None:
    replaced(path, bytes(path.stat().st_size))


def replaced(path: Path, content: bytes | bytearray) -> None:
    path.unlink()  # hard links elsewhere stay as they are
    path.write_bytes(content)


KINDS = [truncated, flipped, emptied, Path.unlink, made_a_folder, dangling, zeroed]


@pytest.fixture(scope="module", params=HEADS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return train_toy(tmp_path_factory.mktemp(request.param), *WORDS, *HEADS[request.param]).run


def stopped(run: RunDir, path: Path) -> RunDir:
    """A copy, as if it had been killed after step 4."""
    shutil.copytree(run.path, path)
    copy = RunDir(path)
    shutil.rmtree(copy.snapshot(6))
    copy.truncate_metrics(4)
    return copy


def check_damage(finished: RunDir, path: Path, name: Path, change: Callable[[Path], None]) -> None:
    """One damage to the newest checkpoint is said, and the end of the run is as if there had been none."""
    run = stopped(finished, path)
    change(run.snapshot(4) / name)
    train(load_config(run.config), run.path)
    (said,) = [row["message"] for row in run.read_metrics("health") if "damaged" in row["message"]]
    assert str(run.snapshot(4)) in said and str(name) in said, said
    assert "the training continues from step 2 and writes the damaged one again" in said
    found = [one for one in differences(finished.path, run.path) if not one.startswith("metrics.jsonl")]
    assert not found, (name, change, found)
    shutil.rmtree(run.path)


def files_of(snapshot: Path) -> list[Path]:
    files = [path.relative_to(snapshot) for path in sorted(snapshot.rglob("*")) if path.is_file()]
    assert len(files) >= 6
    return files


def test_a_damaged_checkpoint_is_said_and_replaced(finished: RunDir, tmp_path: Path) -> None:
    for number, name in enumerate(files_of(finished.snapshot(4))):  # every file, and every kind of damage
        check_damage(finished, tmp_path / str(number), name, KINDS[number % len(KINDS)])


@pytest.mark.slow
@pytest.mark.parametrize("change", KINDS)
def test_every_file_is_damaged_in_every_way(
    finished: RunDir, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    for number, name in enumerate(files_of(finished.snapshot(4))):
        check_damage(finished, tmp_path / str(number), name, change)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return train_toy(tmp_path_factory.mktemp("run"), *WORDS).run


@pytest.fixture
def copy(run: RunDir, tmp_path: Path) -> RunDir:
    shutil.copytree(run.path, tmp_path / "copy")
    return RunDir(tmp_path / "copy")


def best(run: RunDir) -> Path:
    return run.model_path("best").parent


def other_step(run: RunDir) -> int:
    """The newest step that is not the best one."""
    note = run.best()
    assert note
    return max(step for step in run.steps() if step != note["step"])


def test_a_run_without_a_whole_checkpoint_is_one_sentence(copy: RunDir, facescale: Facescale) -> None:
    for step in copy.steps():
        flipped(copy.snapshot(step) / "state.pt")
    code, _, error = facescale("train", "--run", str(copy.path))
    assert code == 2 and error.count("\n") == 1
    assert f"no checkpoint of the run {copy.path} is whole (step_00000006: state.pt is not what was" in error


def test_a_model_is_loaded_from_the_newest_whole_checkpoint(copy: RunDir) -> None:
    folder, step = best(copy), other_step(copy)
    flipped(folder / "model.safetensors")
    expected = (
        rf"checkpoint {folder} is damaged \(model.safetensors is not what .*the one of step {step} is used"
    )
    with pytest.warns(DamageWarning, match=expected):
        model = facescale.load(copy.path, device="cpu")
    assert model.embedding_size == 16
    for named in (folder, folder / "model.safetensors"):
        with pytest.raises(ValueError, match=r"the weights .* are damaged .*; use another checkpoint"):
            facescale.load(named, device="cpu")
    note = copy.best()
    assert note
    with pytest.raises(ValueError, match=r"checkpoint .* is damaged .*; use another one, or restore it"):
        copy.model_path(note["step"])


@pytest.mark.parametrize(
    "words", [("evaluate", "{run}"), ("export", "{run}", "--out", "{run}/out.safetensors")]
)
def test_commands_say_which_checkpoint_they_use(
    copy: RunDir, facescale: Facescale, words: tuple[str, ...]
) -> None:
    emptied(best(copy) / "model.safetensors")
    code, _, error = facescale(*(word.format(run=copy.path) for word in words))
    assert code == 0, error
    assert error.startswith("facescale: checkpoint ") and error.count("\n") == 1, error
    assert f"the one of step {other_step(copy)} is used instead" in error


def test_a_new_run_takes_network_and_centres_from_a_whole_checkpoint(copy: RunDir, tmp_path: Path) -> None:
    config = load_config(None, [*SETTINGS, "train.duration=1 steps", f"train.init={copy.path}"])
    folder, step = best(copy), other_step(copy)
    (rows,) = (folder / "centres").glob("rows-*")
    flipped(rows)
    with pytest.warns(DamageWarning, match=rf"centres/rows-.*the one of step {step} is used instead"):
        result = train(config, tmp_path / "new")
    assert result.run.read_metrics("start")[0]["known_identities"] == 12
    for other in copy.steps():
        (copy.snapshot(other) / "state.pt").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"checkpoint .* is damaged \(.*\); use another one, or restore it"):
        train(config, tmp_path / "another")


OTHERS = {
    "config.toml": ["train", "report", "evaluate"],
    "plan.json": ["report", "evaluate"],
    "identities.json": ["train"],
    "checkpoints/best.json": ["train", "evaluate"],
    "metrics.jsonl": ["train", "report"],
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("change", [truncated, zeroed, made_a_folder])
def test_damage_to_other_files_of_a_run_is_told_in_a_sentence_or_does_no_harm(
    copy: RunDir, facescale: Facescale, name: str, change: Callable[[Path], None]
) -> None:
    change(copy.path / name)
    for command in OTHERS[name]:
        words = ["--run", str(copy.path)] if command == "train" else [str(copy.path)]
        more = ["--set", "train.duration=7 steps"] if command == "train" else []
        code, _, error = facescale(command, *words, *more)
        assert code in (0, 2), error
        assert "Traceback" not in error and "internal step" not in error, error
        assert error.count("\n") <= 1 or name == "config.toml", error
        if code:
            assert name in error or name == "config.toml", error

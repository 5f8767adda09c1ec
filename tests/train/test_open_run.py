"""What a sitting demands of the run folder: its own config, its own people and images, nothing foreign."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from facescale.config import load_config
from facescale.run import RunDir
from facescale.train import train
from facescale.train.open_run import check_folder, config_for
from tests.tiny import TINY, train_steps

WORDS = [*TINY, "eval.sets={}", "train.batch_size=4", "train.duration=3 steps"]


def draw(folder: Path, *names: str, images: int = 3) -> Path:
    """A folder of people, ``images`` pictures each."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                folder / name / f"{number}.png"
            )
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data ``faces`` and a run that was stopped after a step."""
    folder = tmp_path_factory.mktemp("begun")
    config = load_config(None, [*WORDS, f"data.train={draw(folder / 'faces', 'anna', 'ben', 'cara')}"])
    train_steps(config, folder / "run", 1)
    return folder


@pytest.fixture
def copy(begun: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return shutil.copytree(begun, tmp_path / "copy")


def go_on(folder: Path, *more: str) -> list[dict[str, Any]]:
    """Continue the run in ``folder`` with the data there; returns the lines of the log."""
    lines: list[dict[str, Any]] = []
    config = load_config(None, [*WORDS, f"data.train={folder / 'faces'}", *more])
    train(config, folder / "run", on_log=lambda line, plan: lines.append(line))
    return lines


def test_data_that_moved_are_the_same_and_the_run_remembers_where_they_are(copy: Path) -> None:
    assert go_on(copy)[0]["step"] == 1
    assert load_config(RunDir(copy / "run").config).data.train == str(copy / "faces")
    assert RunDir(copy / "run").steps()[-1] == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda faces: draw(faces, "dan"), r"4 people instead of 3: 1 added \(such as 'dan'\)"),
        (lambda faces: shutil.rmtree(faces / "ben"), r"2 people instead of 3: 1 removed \(such as 'ben'\)"),
        (lambda faces: (faces / "ben").rename(faces / "ben2"), r"1 added \(such as 'ben2'\), 1 removed"),
        (lambda faces: (faces / "ben/1.png").rename(faces / "ben/7.png"), r"images: others under the names"),
        (
            lambda faces: shutil.copy(faces / "ben/1.png", faces / "ben/7.png"),
            r"images: 1 added \(4 of 'ben'",
        ),
        (lambda faces: shutil.copy(faces / "ben/1.png", faces / "ben/2.png"), r"1 replaced .*'ben/2.png'"),
    ],
    ids=[
        "person added",
        "person removed",
        "person renamed",
        "image renamed",
        "image added",
        "image replaced",
    ],
)
def test_a_run_does_not_go_on_with_other_data(copy: Path, change: Any, said: str) -> None:
    change(copy / "faces")
    before = sorted(path.name for path in (copy / "run").rglob("*"))
    message = said + r".*continue with the data as it was, or start another run with --set train\.init="
    with pytest.raises(ValueError, match=message):
        go_on(copy)
    assert sorted(path.name for path in (copy / "run").rglob("*")) == before


def test_the_checkpoint_knows_its_images_where_the_run_does_not(copy: Path) -> None:
    (copy / "run/data.safetensors").unlink()
    kept = shutil.copytree(copy, copy.parent / "kept")
    shutil.copy(copy / "faces/ben/1.png", copy / "faces/ben/2.png")
    with pytest.raises(ValueError, match=r"the newest checkpoint of the run .* was trained on other images"):
        go_on(copy)
    assert go_on(kept)[-1]["step"] == 3
    assert load_file(kept / "run/data.safetensors")["count_N"].tolist() == [3, 3, 3]


def test_a_run_goes_on_with_its_own_config(copy: Path) -> None:
    run = copy / "run"
    assert config_for(run) == load_config(RunDir(run).config)
    assert config_for(run, None, ["train.log_every=7"]).train.log_every == 7
    assert config_for(copy / "new").data.train.startswith("synthetic:")
    assert train(None, run).step == 3
    with pytest.raises(ValueError, match=r"new is not a run folder: no config.toml in it"):
        train(None, copy / "new")


def test_a_config_file_and_a_run_without_a_checkpoint_count_as_written(copy: Path) -> None:
    (copy / "other.toml").write_text("[train]\nseed = 5\n")
    assert config_for(copy / "run", copy / "other.toml").train.seed == 5
    shutil.rmtree(copy / "run/checkpoints")
    assert config_for(copy / "run").train.batch_size == 4
    assert config_for(copy / "run", None, ["train.seed=3"]).train.batch_size == 128


def test_a_longer_duration_lengthens_a_run_and_says_what_the_rate_does(copy: Path) -> None:
    assert "new_length" not in go_on(copy)[-1]
    (line, *_) = lines = go_on(copy, "train.duration=6 steps")
    assert line["new_length"].startswith(
        "the run now has 6 steps instead of 3: the learning rate, and all that"
    )
    assert "at step 3 the rate is 0.000391 (it would have been 0)" in line["new_length"]
    assert lines[-1]["step"] == 6
    assert go_on(copy, "train.duration=6 steps")[0]["new_length"] is None
    message = r"has done 6 steps already and train.duration is 3 steps; make it longer"
    with pytest.raises(ValueError, match=message):
        go_on(copy)


def test_other_values_are_refused_and_a_run_without_a_checkpoint_starts_again(copy: Path) -> None:
    with pytest.raises(ValueError, match=r"was started with other values of train.seed; use another --run"):
        go_on(copy, "train.seed=1")
    shutil.rmtree(copy / "run/checkpoints")
    draw(copy / "faces", "dan")
    lines = go_on(copy, "train.seed=1")
    assert lines[0]["step"] == 0 and lines[-1]["step"] == 3
    assert load_config(RunDir(copy / "run").config).train.seed == 1


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    message = r"is not a run and holds other things \(1, such as 'photos'\); use a new or empty --run folder"
    with pytest.raises(ValueError, match=message):
        train(load_config(None, WORDS), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file is a file; use another --run folder"):
        check_folder(RunDir(tmp_path / "file"))


def test_logs_of_launchers_and_what_a_failed_start_left_are_not_other_things(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".lock").write_text("")
    check_folder(RunDir(tmp_path))

"""A training on a disk that fills up: the sentence, the checkpoint before, nothing half-written; then on."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from facescale.files import NoSpaceError
from facescale.run import RunDir
from tests.same_run import differences
from tests.wiring.toy import train_toy

WORDS = ["checkpoint.every=2 steps", "checkpoint.keep=2", "eval.every=6 steps", "backbone.name=toy"]
HEADS = {
    "memory": ["head.name=full"],
    "disk": ["head.name=partial_fc", "head.rate=0.5", "head.placement=disk"],
    "background": ["head.name=full", "checkpoint.background=true"],
}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory; skipped where mounting one is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True)
    except FileNotFoundError:
        pytest.skip("skipped: no mount command")
    if done.returncode:
        pytest.skip("skipped: mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, kilobytes_left: int) -> Path:
    """Leave this much room."""
    file = folder / "filler"
    with suppress(OSError):  # a background writer may have taken some of it in the meantime
        file.write_bytes(bytes(shutil.disk_usage(folder).free - kilobytes_left * 1024))
    return file


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kilobytes", [12, 40])
def test_a_full_disk_stops_a_training_in_a_sentence(
    head: str, kilobytes: int, small: Path, tmp_path: Path
) -> None:
    words = [*WORDS, *HEADS[head]]
    whole = train_toy(tmp_path / "whole", *words).run
    fillers: list[Path] = []

    def at(line: dict[str, object], plan: object) -> None:
        if line["kind"] == "train" and line["step"] == 3:
            fillers.append(fill(small, kilobytes))

    with pytest.raises(NoSpaceError) as raised:
        train_toy(small, *words, on_log=at)
    said = str(raised.value)
    assert said.startswith(f"no space left on the disk at {small} for "), said
    assert "the one of step 2 is whole" in said or "the checkpoint of step 4" not in said, said
    run = RunDir(small / "run")
    # in the background that of step 2 may not have its name when the disk fills up in step 3
    assert run.steps() == [2] or (head == "background" and run.steps() == [])
    assert not list(run.checkpoints.glob(".*"))
    fillers[0].unlink()
    train_toy(small, *words)
    assert not [one for one in differences(whole.path, run.path) if not one.startswith("metrics.jsonl")]

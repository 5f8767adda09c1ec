"""--processes: the same training as torchrun's, without torchrun."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from facescale.cli.app import app
from facescale.cli.processes import ProcessesOption, demo_processes
from facescale.cli.processes import spread as spread_here
from facescale.machine import Setting
from facescale.run import RunDir


def spread(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facescale", *map(str, words)]
    clean = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env={**clean, **environment})


def test_the_demo_in_two_processes_speaks_once(tmp_path: Path) -> None:
    short = ["train.duration=2 steps", "data.train=synthetic:ids=20,images=8,size=48"]
    short.append("eval.sets.unseen=synthetic:pairs=20")
    words = [part for setting in short for part in ("--set", setting)]
    done = spread("demo", "--run", tmp_path / "demo", "--device", "cpu", "--processes", 2, *words)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for line in ("160 images of ", "trained 2 steps", "unseen: ", "model:  ", "report: "):
        assert f"\n{done.stdout}".count(f"\n{line}") == 1, done.stdout
    start = RunDir(tmp_path / "demo").read_metrics()[0]
    assert (start["world_size"], start["process_batch"]) == (2, 32)
    assert (tmp_path / "demo" / "export" / "model.onnx").is_file()


def test_two_processes_measure_what_one_does(facescale, tiny_run: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("evaluate", tiny_run, "--device", "cpu", "--no-cache", "--json")
    done = spread(*words, "--processes", 2, OMP_NUM_THREADS="1")
    assert done.returncode == 0 and done.stdout == facescale(*words)[1], done.stderr


@pytest.mark.slow  # tests/machine has the launcher's part
def test_wrong_input_is_told_once(tmp_path: Path) -> None:
    done = spread("train", "--run", tmp_path / "run", "--processes", 2, "--set", "data.train=nowhere")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("nowhere") == 1 and len(done.stderr.splitlines()) == 1


def test_another_number_than_that_of_torchrun_is_refused(tmp_path: Path) -> None:
    done = spread("train", "--run", tmp_path / "run", "--processes", 2, WORLD_SIZE="3", RANK="0")
    assert done.returncode == 2 and "leave it out" in done.stderr


def test_the_number_is_left_to_torchrun_unless_the_user_says_one() -> None:
    given = [
        inspect.signature(command.callback).parameters.get("processes") for command in app.registered_commands
    ]
    defaults = [one.default for one in given if one and one.annotation == ProcessesOption]
    assert len(defaults) >= 3 and set(defaults) == {0}


@pytest.mark.parametrize(("variable", "kept"), [("OMP_NUM_THREADS", []), ("", ["OMP_NUM_THREADS"])])
def test_each_process_chooses_its_threads_unless_the_user_did(
    monkeypatch: pytest.MonkeyPatch, variable: str, kept: list[str]
) -> None:
    passed_on: list[str] = []
    context = SimpleNamespace(obj=[Setting("threads", "6", "why", variable)])
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(
        "facescale.cli.processes.run_processes",
        lambda command, processes, environment: passed_on.extend(environment),
    )
    with pytest.raises(typer.Exit):
        spread_here(context, 2)  # type: ignore[arg-type]
    assert [key for key in passed_on if key == "OMP_NUM_THREADS"] == kept


def test_the_demo_takes_two_processes_on_cpu_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for cores, expected in ((1, 0), (2, 2), (16, 2)):
        monkeypatch.setattr("facescale.cli.processes.free_cores", lambda cores=cores: (cores, "why"))
        assert demo_processes("cpu") == expected
    monkeypatch.setenv("WORLD_SIZE", "3")  # torchrun's number stays
    assert demo_processes("cpu") == 0

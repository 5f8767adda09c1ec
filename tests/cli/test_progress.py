import io
import json
import re

import pytest
from rich.console import Console

from facescale.cli.progress import Display
from facescale.plan import Plan
from facescale.run import RunDir
from facescale.train import Result

PLAN = Plan(
    num_ids=10,
    num_images=100,
    world_size=1,
    process_batch=20,
    part_batch=20,
    steps_per_epoch=5,
    total_steps=10,
    checkpoint_steps=5,
    eval_steps=5,
    ramp_steps=0,
    lr=0.05,
    precision="bf16",
    device="cpu",
)
TRAIN = {
    "kind": "train",
    "step": 5,
    "epoch": 1.0,
    "loss": 2.5,
    "target_cosine": 0.25,
    "lr": 0.025,
    "images_per_s": 50.0,
    "wait_share": 0.03,
}


def shown(capsys: pytest.CaptureFixture[str], values: dict[str, object], as_json: bool = False) -> str:
    with Display(True, as_json) as display:
        display.line(values, PLAN)
    return capsys.readouterr().out


def test_a_pipe_gets_plain_lines_with_throughput_waiting_and_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(capsys, TRAIN)
    assert text.startswith("step 5/10") and "\x1b" not in text
    for part in ("loss 2.500", "50 images/s", "waiting for data 3%", "0 min left"):
        assert part in text


def test_the_first_line_states_the_rate_at_this_batch(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, {"kind": "start", "step": 0})
    assert "100 images of 10 identities; batch 20" in text
    assert "learning rate 0.05 at this batch; starting" in text
    others = shown(capsys, {"kind": "start", "step": 0, "passed_over": {".txt": 1, ".heic": 3}})
    assert others.rstrip().endswith("; files passed over: .heic (3), .txt (1)")
    assert "continuing at step 5" in shown(capsys, {"kind": "start", "step": 5})


def test_evaluations_remarks_and_bad_steps_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"kind": "eval", "step": 5, "lfw/accuracy": 0.9, "lfw/accuracy_std": 0.01, "lfw/auc": 0.95}
    assert "accuracy: lfw 90.00% +- 1.00%" in shown(capsys, values)
    values |= {
        "ijbc/tar@far=0.001": 0.7,
        "ijbc/threshold@far=0.001": 0.3,
        "ijbc/rank1": 0.6,
        "who/rank1": 0.5,
    }
    text = shown(capsys, values).strip()
    assert text.endswith("accuracy: lfw 90.00% +- 1.00%  ijbc: tar@far=0.001 70.00%  who: rank1 50.00%")
    del values["lfw/accuracy"]
    assert "accuracy" not in shown(capsys, values)
    assert "attention: look here" in shown(capsys, {"kind": "health", "step": 5, "message": "look here"})
    bad = {"kind": "bad_step", "step": 5, "loss": "nan", "grad_norm": "inf"}
    assert "not finite, skipped: loss nan, gradient inf" in shown(capsys, bad)


def test_json_lines_are_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(shown(capsys, TRAIN, as_json=True)) == TRAIN


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(False) as display:
        display.line(TRAIN, PLAN)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("figure", "best", "worse"), [("accuracy", 0.9, 0.8), ("eer", 0.1, 0.2)])
def test_the_bar_fills_the_window_and_shows_epoch_and_best_figure(
    monkeypatch: pytest.MonkeyPatch, figure: str, best: float, worse: float
) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stdout", file)
    console = Console(file=file, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr("facescale.cli.progress.Console", lambda **_: console)
    with Display(True) as display:
        for step, value in ((4, best), (5, worse)):
            found = {f"lfw/{figure}": value, f"lfw/{figure}_std": 0.0}
            display.line({"kind": "eval", "step": step, **found}, PLAN)
        display.line(TRAIN, PLAN)
        display.finish(Result(RunDir("runs/x"), 10, True, {}))
    shown = [
        line for line in re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", file.getvalue()).splitlines() if line.strip()
    ]
    assert shown[-1] == "trained 10 steps; the run is in runs/x", "the bar ends above the last line"
    bar = next(line for line in reversed(shown) if "epoch 1.0" in line)
    assert f"best {best:.2%}" in bar
    assert 110 <= len(bar.split("\r")[-1].rstrip()) <= 120

"""Whole trainings against a loop of a few lines in plain torch, which share no code with the package's."""

from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import heads
from facescale.config import load_config
from facescale.data import open_reader
from facescale.run import RunDir
from facescale.train import train
from tests.wiring.plain import Case, Trace, plain_training
from tests.wiring.toy import IDS, SETTINGS, D, weights

CASES: dict[str, tuple[list[str], Case]] = {
    "everything": (
        [
            "train.seed=3",
            "train.duration=12 steps",  # two epochs of six
            "train.accumulate=2",
            "train.clip_norm=1.0",
            "train.ema=0.6",
            "head.margin.ramp=7 steps",
            "optim.warmup=3 steps",
            "optim.power=2.0",
            "optim.momentum=0.8",
            "optim.weight_decay=0.05",
        ],
        Case(
            steps=12,
            parts=2,
            seed=3,
            clip=1.0,
            ema=0.6,
            ramp=7,
            warmup=3,
            power=2.0,
            momentum=0.8,
            weight_decay=0.05,
        ),
    ),
    "ema of a high decay": (["train.ema=0.99"], Case(ema=0.99)),
    "no clipping": (["train.clip_norm=0", "optim.weight_decay=0"], Case(clip=0.0, weight_decay=0.0)),
    "nesterov": (["optim.nesterov=true"], Case(nesterov=True)),
    "adamw": (
        ["optim.name=adamw", "optim.betas=[0.5, 0.6]", "optim.lr=0.02", "optim.weight_decay=0.1"],
        Case(optimizer="adamw", betas=(0.5, 0.6), lr=0.01, weight_decay=0.1),
    ),
    "a step that is not finite": (
        ["backbone.bad_at=2", "train.ema=0.6", "head.margin.ramp=4 steps"],
        Case(skipped=2, ema=0.6, ramp=4),
    ),
    "a gradient that is not finite": (["backbone.bad_gradient_at=3"], Case(skipped=3)),
    "one bad part of two": (
        ["backbone.bad_at=4", "train.accumulate=2"],
        Case(skipped=2, parts=2),
    ),
}


def near(value: Any, expected: Any, tolerance: float = 2e-4) -> None:
    torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(expected), rtol=tolerance, atol=1e-5)


def centres(run: RunDir, step: int) -> Tensor:
    head = heads.build("full", IDS, D, "cosface")
    head.load_rows(run.snapshot(step))
    return head.read_rows(torch.arange(IDS))  # type: ignore[no-any-return,operator]


@pytest.fixture(scope="module", params=list(CASES))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDir, Case, Trace]:
    settings, case = CASES[request.param]
    config = load_config(None, [*SETTINGS, *settings])
    result = train(config, tmp_path_factory.mktemp("plain") / "run")
    return result.run, case, plain_training(config, case)


def lines(run: RunDir, case: Case, name: str) -> list[float]:
    """A column of the log, without the step that is skipped."""
    rows = run.read_metrics("train")
    assert [row["step"] for row in rows] == list(range(1, case.steps + 1))
    (key,) = [key for key in rows[0] if key == name or (name == "cosine" and key.endswith("_cosine"))]
    return [row[key] for row in rows if row["step"] != case.skipped + 1]


def test_every_logged_figure_is_that_of_the_plain_loop(pair: tuple[RunDir, Case, Trace]) -> None:
    run, case, trace = pair
    for name in ("lr", "loss", "grad_norm", "cosine", "norm"):
        expected = [value for step, value in enumerate(getattr(trace, name)) if step != case.skipped]
        near(lines(run, case, name), expected)


def test_the_last_weights_and_statistics_are_those_of_the_plain_loop(
    pair: tuple[RunDir, Case, Trace],
) -> None:
    run, case, trace = pair
    saved = weights(run, case.steps)
    assert saved.keys() == trace.evaluated.keys()
    for name, expected in trace.evaluated.items():
        if not name.endswith("num_batches_tracked"):
            near(saved[name], expected)


def test_the_last_class_centres_are_those_of_the_plain_loop(pair: tuple[RunDir, Case, Trace]) -> None:
    run, case, trace = pair
    near(centres(run, case.steps), trace.centres_CD)


def test_a_skipped_step_is_logged_with_its_images(pair: tuple[RunDir, Case, Trace]) -> None:
    run, case, trace = pair
    bad = run.read_metrics("bad_step")
    if case.skipped < 0:
        assert bad == []
        return
    (line,) = bad
    reader = open_reader(load_config(run.config).data.train)
    assert line["step"] == case.skipped + 1
    assert line["first_images"] == [reader.key(index) for index in trace.index[case.skipped][:4]]

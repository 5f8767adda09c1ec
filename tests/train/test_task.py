"""The networks of a training: what a step sets, what its parts add up to, what a checkpoint restores."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from facescale.config import Config, load_config
from facescale.data import open_reader
from facescale.distributed import Dist
from facescale.model_card import Threshold
from facescale.plan import make_plan
from facescale.train import train
from facescale.train.build import build_task
from facescale.train.task import RecognitionTask, StepOutput
from tests.tiny import TINY


def built(config: Config, folder: Path) -> RecognitionTask:
    return build_task(config, make_plan(config, Dist(), open_reader(config.data.train)), Dist(), folder)


def test_the_output_of_a_batch_is_the_mean_over_its_parts() -> None:
    parts = [StepOutput(torch.tensor(x), {"norm": torch.tensor(10 * x)}) for x in (1.0, 2.0, 6.0)]
    mean = StepOutput.mean(parts)
    assert mean.loss.item() == pytest.approx(3.0)
    assert mean.stats["norm"].item() == pytest.approx(30.0)


def test_figures_of_all_parts_are_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    forward = RecognitionTask.forward

    def watched(task: RecognitionTask, batch: object) -> StepOutput:
        output = forward(task, batch)  # type: ignore[arg-type]
        seen.append(output.stats["norm"].item())
        return output

    monkeypatch.setattr(RecognitionTask, "forward", watched)
    settings = [*TINY, "train.accumulate=2", "train.log_every=1", "train.duration=2 steps", "eval.sets={}"]
    run = train(load_config(None, settings), tmp_path / "run").run
    logged = [row["norm"] for row in run.read_metrics("train")]
    expected = [(seen[0] + seen[1]) / 2, (seen[2] + seen[3]) / 2]
    assert logged == pytest.approx(expected, abs=1e-5) and seen[0] != seen[1]


def test_a_step_begins_with_the_margins_strength_and_the_loss_scale(
    tiny_config: Config, tmp_path: Path
) -> None:
    task = built(tiny_config, tmp_path)
    task.begin_step(0.5, strength=0.25, loss_scale=1024.0)
    assert (task.head.margin.strength, task.head.loss_scale) == (0.25, 1024.0)


def test_the_average_starts_close_to_the_network(tiny_config: Config, tmp_path: Path) -> None:
    """Momentum n / (n + 9) after n steps, up to train.ema (0.5 here)."""
    task = built(tiny_config, tmp_path)
    assert task.average is not None
    expected = next(task.average.net.parameters()).detach().clone()
    for step in range(1, 12):
        with torch.no_grad():
            next(task.backbone.parameters()).add_(step)
        task.after_step(0.1)
        momentum = min(0.5, step / (9 + step))
        expected = momentum * expected + (1 - momentum) * next(task.backbone.parameters()).detach()
        assert torch.allclose(next(task.average.net.parameters()), expected)


def test_thresholds_come_back_with_the_state(tiny_config: Config, tiny_run: Path, tmp_path: Path) -> None:
    task, other = built(tiny_config, tmp_path), built(tiny_config, tmp_path)
    thresholds = {0.1: Threshold(0.3, 0.2, 0.41, "unseen")}
    task.card = replace(task.card, thresholds=thresholds)
    task.model_to_save()(False)(tmp_path / "model.safetensors")
    task.head.save_rows(tmp_path)
    other.load_state(task.state(), tmp_path)
    assert other.card == task.card


def test_released_order_is_asked_for_by_the_head(tmp_path: Path) -> None:
    for compat in (False, True):
        options = ["head.name=attfc", "head.share=1.0", f"head.compat={str(compat).lower()}"]
        config = load_config(None, [*TINY, *options])
        assert built(config, tmp_path).head.needs.released_order is compat

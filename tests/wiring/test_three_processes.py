"""Three processes learn and measure what one does, with every head: gradients, rows, figures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facescale import backbones
from facescale.config import load_config
from facescale.distributed import Dist
from facescale.heads import HEADS
from facescale.run import RunDir
from facescale.train import train
from tests.distributed.spawn import run_processes
from tests.wiring.toy import SETTINGS, Toy, weights

BATCH = ["train.batch_size=12", "eval.every=3 steps", "eval.batch_size=4", "checkpoint.every=3 steps"]
ALL = {
    "full": ["head.name=full"],
    "partial_fc": ["head.name=partial_fc", "head.rate=1.0"],
    "attfc": ["head.name=attfc", "head.share=1.0"],
    "f2c": ["head.name=f2c", "head.share=1.0"],
}
REST = {
    "full, AdamW": ["head.name=full", "optim.name=adamw", "optim.lr=0.01", "train.ema=0.5"],
    "full, centres in host memory": ["head.name=full", "head.placement=host"],
    "partial_fc, centres on disk": ["head.name=partial_fc", "head.rate=1.0", "head.placement=disk"],
    "full, CurricularFace": ["head.name=full", "head.margin.name=curricular"],
    "full, MagFace": ["head.name=full", "head.margin.name=magface"],
    "full, SubCenter": ["head.name=full", "head.margin.name=subcenter_arcface"],
    "attfc, AdaFace": ["head.name=attfc", "head.share=0.5", "head.margin.name=adaface"],
    "f2c, CosFace": ["head.name=f2c", "head.share=0.5", "head.margin.name=cosface"],
}


class Plain(Toy):
    """Without batch norm, whose statistics are those of one process's images."""

    def __init__(self, embedding_size: int, **options: Any) -> None:
        super().__init__(embedding_size, **options)
        self.features[1] = nn.Identity()


def _train(dist: Dist, path: str, settings: list[str]) -> None:
    backbones.BACKBONES["toy"] = Plain
    margin = [] if any("margin.name" in one for one in settings) else ["head.margin.name=cosface"]
    base = [one for one in SETTINGS if not ("margin.name" in str(settings) and "margin.m=" in one)]
    train(load_config(None, [*base, *BATCH, *margin, *settings]), path, dist)


def _same(settings: list[str], folder: Path) -> None:
    for world_size in (1, 3):
        run_processes(world_size, _train, str(folder / str(world_size)), settings)
    one, three = RunDir(folder / "1"), RunDir(folder / "3")
    for name in ("loss", "grad_norm", "target_cosine"):
        figures = [[row[name] for row in run.read_metrics("train")] for run in (three, one)]
        assert len(figures[0]) == 6
        assert figures[0] == pytest.approx(figures[1], rel=1e-3, abs=1e-4), name
    for name, expected in weights(one, 6).items():
        torch.testing.assert_close(weights(three, 6)[name], expected, rtol=1e-3, atol=1e-4)
    measured = [[row for row in run.read_metrics("eval")] for run in (three, one)]
    for ours, theirs in zip(*measured, strict=True):
        assert ours["step"] == theirs["step"]
        for name in ("unseen/auc", "unseen/mean_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-2)


@pytest.mark.parametrize("name", ALL)
def test_three_processes_are_one(name: str, tmp_path: Path) -> None:
    assert ALL.keys() == HEADS.keys(), "give the new head its settings"
    _same(ALL[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_three_processes_are_one_with_other_options_too(name: str, tmp_path: Path) -> None:
    _same(REST[name], tmp_path)

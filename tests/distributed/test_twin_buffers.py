"""A twin with running statistics on two processes: the same statistics on both, and an exact resume."""

from pathlib import Path

import pytest
import torch

from facescale import backbones
from facescale.config import load_config
from facescale.distributed import Dist
from facescale.train import train
from facescale.train.twin import Twin
from tests.distributed.spawn import run_processes
from tests.same_run import differences
from tests.tiny import train_steps
from tests.wiring.toy import SETTINGS, Toy


def _interrupt(dist: Dist, folder: Path) -> None:
    backbones.BACKBONES["toy"] = Toy
    twins: list[Twin] = []
    update = Twin.update

    def watched(self: Twin, *args: object) -> None:
        update(self, *args)  # type: ignore[arg-type]
        twins.append(self)

    for buffers in ("copy", "average"):
        head = ["head.name=attfc", "head.share=1.0", f"twin.buffers={buffers}", "twin.momentum=0.5"]
        config = load_config(None, [*SETTINGS, *head, "eval.sets={}", "checkpoint.every=6 steps"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Twin, "update", watched)
            train(config, folder / buffers / "whole", dist)
        statistics = torch.cat([x.flatten().float() for x in twins[-1].net.buffers()])
        assert torch.equal(statistics, dist.broadcast(statistics.clone()))
        train_steps(config, folder / buffers / "cut", 3, dist)
        train(config, folder / buffers / "cut", dist)
        if dist.is_main:
            found = differences(folder / buffers / "whole", folder / buffers / "cut")
            assert [one for one in found if "/step_00000003/" not in one] == []
        dist.barrier()


def test_a_resume_is_exact_with_running_statistics(tmp_path: Path) -> None:
    run_processes(2, _interrupt, tmp_path)

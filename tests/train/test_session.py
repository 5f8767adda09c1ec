"""What a training is made of: the loader that the head needs, the log that goes on after a resume."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from facescale.config import load_config
from facescale.data.sampling.attention import AttentionSampler, ReleasedAttentionSampler
from facescale.data.sampling.base import ImageSampler
from facescale.data.sampling.pairs import PairSampler
from facescale.distributed import Dist
from facescale.run import RunDir
from facescale.train import loop, train
from facescale.train.notes import setting_notes
from facescale.train.session import open_session
from tests.tiny import TINY, train_steps


@pytest.mark.parametrize(
    ("head", "sampler"),
    [
        (["head.name=full"], ImageSampler),
        (["head.name=attfc", "head.share=1.0"], AttentionSampler),
        (["head.name=attfc", "head.share=1.0", "head.compat=true"], ReleasedAttentionSampler),
        (["head.name=f2c", "head.share=1.0"], PairSampler),
    ],
)
def test_the_head_decides_which_images_make_a_batch(tmp_path: Path, head: list[str], sampler: type) -> None:
    config = load_config(None, [*TINY, "eval.sets={}", *head])
    session = open_session(config, tmp_path / "run", Dist(), None, resume=True)
    assert type(session.loader.sampler) is sampler


@pytest.mark.parametrize(("steps", "notes"), [(99, 1), (100, 0)])
def test_too_few_steps_to_learn_in_are_said_at_the_start(tmp_path: Path, steps: int, notes: int) -> None:
    settings = [*TINY, f"train.duration={steps} steps", "eval.sets={}"]
    open_session(load_config(None, settings), tmp_path / "run", Dist(), None, resume=True)
    (start,) = RunDir(tmp_path / "run").read_metrics("start")
    assert len(start["notes"]) == notes
    if notes:
        assert start["notes"][0].startswith(
            "99 steps in all are too few for a network that starts from random"
        )


def test_photos_that_are_evaluated_on_synthetic_faces_are_said_at_the_start() -> None:
    plan = SimpleNamespace(total_steps=1000)
    on_photos = load_config(None, ["data.train=faces/"])
    assert "--set eval.sets.test=test.bin" in setting_notes(on_photos, plan)[0]  # type: ignore[arg-type]
    for settings in (
        ["data.train=faces/", "eval.sets.mine=test.bin"],
        ["data.train=synthetic:ids=2,images=9"],
    ):
        assert setting_notes(load_config(None, settings), plan) == []  # type: ignore[arg-type]


def test_a_health_hint_comes_once_until_it_looks_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints = iter(["bad", "bad", None, "bad", "bad", "bad"])
    monkeypatch.setattr(loop, "diagnose", lambda line, num_ids, progress: next(hints))
    config = load_config(None, [*TINY, "train.log_every=1", "eval.sets={}"])
    train_steps(config, tmp_path / "run", 5)
    train(config, tmp_path / "run")
    lines = RunDir(tmp_path / "run").read_metrics("health")
    assert [(line["step"], line["message"]) for line in lines] == [(1, "bad"), (4, "bad")]

import pytest
import torch

from facescale.config import load_config
from facescale.data import open_reader
from facescale.distributed import Dist, pick_device
from facescale.plan import Plan, make_plan, pick_precision


def plan(*settings: str, dist: Dist | None = None) -> Plan:
    config = load_config(None, ["data.train=synthetic:ids=10,images=10", *settings])
    return make_plan(config, dist or Dist(), open_reader(config.data.train))


def test_steps_and_rate_follow_from_data_and_batch() -> None:
    made = plan(
        "train.batch_size=32", "train.duration=4 epochs", "head.margin.ramp=50%", "train.accumulate=2"
    )
    assert (made.num_ids, made.num_images, made.steps_per_epoch, made.total_steps) == (10, 100, 3, 12)
    assert (made.process_batch, made.part_batch, made.ramp_steps) == (32, 16, 6)
    assert made.lr == pytest.approx(0.1 * 32 / 512)


def test_the_total_batch_stays_when_processes_are_added() -> None:
    made = plan("train.batch_size=32", dist=Dist(rank=1, world_size=2))
    assert made.process_batch == 16 and made.steps_per_epoch == 3


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the data set \(100 images\); use a smaller batch, such as .*=32$"):
        plan("train.batch_size=128")


def test_a_run_shorter_than_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="is shorter than one step"):
        plan("train.batch_size=32", "train.duration=0.1 epochs")


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="fp16 is not for the CPU; use auto, bf16 or fp32"):
        pick_precision("fp16", torch.device("cpu"))


def test_an_unknown_device_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="this torch sees no CUDA GPU"):
            pick_device("cuda")

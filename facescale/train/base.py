"""The network that low-rank adapters belong to: kept once in the run, as no checkpoint holds it."""

from pathlib import Path

from facescale.backbones.low_rank import adapter_state, plain_state
from facescale.distributed.sharding import whole
from facescale.guard.tensor_file import read_tensors
from facescale.inference.model import weights_fingerprint
from facescale.inference.weights import read_card, save_model
from facescale.run import RunDir
from facescale.train.task import RecognitionTask


def keep_base(task: RecognitionTask, run: RunDir) -> None:
    """Write the network that a training with adapters starts from; all processes call."""
    if not adapter_state(task.backbone):
        return
    state = whole(plain_state(task.backbone), task.head.dist)
    if task.head.dist.is_main:
        save_model(run.base, state, task.card.backbone or {}, task.card.contract)


def take_base(task: RecognitionTask, run: RunDir, folder: Path) -> None:
    """Give the task the network that ``keep_base`` wrote, if it has adapters.

    Args:
        task: the networks.
        run: where the network is.
        folder: the checkpoint to continue from.

    Raises:
        ValueError: the file is gone, damaged, or another one than the adapters of the checkpoint belong to.
    """
    if not adapter_state(task.backbone):
        return
    state, _ = read_tensors(run.base, "the network of the adapters")
    wanted = read_card(folder / "model.safetensors").adapters
    if weights_fingerprint(state, task.card.contract) != wanted:
        raise ValueError(
            f"'{run.base}' is not the network that this run started from; put it back from a copy, or start "
            "another run"
        )
    task.start_with(state)

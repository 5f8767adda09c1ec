"""Start a run from another one: its network, and the class centres of the identities they share."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facescale.checksums import Checksums
from facescale.config import Config
from facescale.data.identities import old_numbers
from facescale.data.images import ReaderImages
from facescale.data.loading.iterate import iter_images
from facescale.data.readers.base import Reader
from facescale.heads import ClassHead
from facescale.heads.centre_head import CentreHead
from facescale.inference.load import load
from facescale.ops import unit
from facescale.run import RunDir
from facescale.train.checkpoint import damage_of
from facescale.train.task import RecognitionTask

# N identities of the new run, D embedding size

_MOST_IMAGES = 32  # of a person, for the mean that a new centre starts from
_BATCH = 64


def inherit(config: Config, task: RecognitionTask, reader: Reader) -> int:
    """Take over what ``config.train.init`` names; all processes call.

    From a run: the network of its best checkpoint and, if both heads keep a centre for every identity, the
    centres with their optimizer state; new identities start with new centres, removed ones are left out. From
    a weights file: the network. ``finetune.head = "replace"`` takes over no centre; with
    ``finetune.new_centres = "mean"`` a new one starts from the mean embedding of its images.

    Returns:
        Number of identities whose centre is inherited.

    Raises:
        ValueError: there is neither a run nor a weights file, or the network does not fit the config.
    """
    path = Path(config.train.init)
    run = RunDir(path) if (path / "config.toml").exists() else None
    folder, dist = path, task.head.dist
    if run:
        folder = run.whole(lambda one: damage_of(one, dist, Checksums()))
    model = load(folder, device="cpu")
    try:
        task.start_with(model.module.state_dict())
    except RuntimeError:
        theirs = (model.card.backbone or {}).get("name", "unknown"), model.embedding_size
        ours = config.backbone.name, config.backbone.embedding_size
        raise ValueError(
            f"the network of train.init = '{path}' ({theirs[0]}, {theirs[1]}-d) does not fit the "
            f"config's ({ours[0]}, {ours[1]}-d); set [backbone] to the same values"
        ) from None
    old_N = _inherit_centres(config, task.head, reader, run, folder)
    new_N = torch.arange(reader.num_ids) if old_N is None else (old_N < 0).nonzero()[:, 0]
    if config.finetune.new_centres == "mean" and isinstance(task.head, CentreHead):
        _start_from_means(config, task, reader, new_N)
    return reader.num_ids - len(new_N)


def _inherit_centres(
    config: Config, head: ClassHead, reader: Reader, run: RunDir | None, folder: Path
) -> Tensor | None:
    """Number of every identity in the old run, -1 for new ones; None where no centre is taken over."""
    if run is None or not head.keeps_every_id or config.finetune.head == "replace":
        return None
    if not (folder / "centres").is_dir():  # that head has no centre for every identity
        return None
    old_N = old_numbers(run.identities, config, reader)
    if (old_N >= 0).any():
        head.inherit_rows(folder, old_N)
    return old_N


def _start_from_means(config: Config, task: RecognitionTask, reader: Reader, new_N: Tensor) -> None:
    """Set the centres of new identities to the direction of their mean embedding; lengths stay as they are.

    All processes compute the same; an identity without a readable image keeps its random centre.
    """
    head = task.head
    assert isinstance(head, CentreHead)
    order = np.argsort(reader.ids, kind="stable")
    starts = np.searchsorted(reader.ids[order], np.arange(reader.num_ids + 1))
    chosen = [order[starts[i] : min(starts[i + 1], starts[i] + _MOST_IMAGES)] for i in new_N.tolist()]
    indices = [int(index) for one in chosen for index in one]
    device = task.head.dist.device
    place = torch.full((reader.num_ids,), -1)
    place[new_N] = torch.arange(len(new_N))
    sum_ND = torch.zeros(len(new_N), head.embedding_size, device=device)
    batches = iter_images(
        ReaderImages(reader),
        indices,
        batch_size=_BATCH,
        size=task.input_size,
        workers=config.data.workers,
        resize=config.data.resize,
        bad={},
    )
    for images, index in batches:
        rows = place[torch.from_numpy(reader.ids[index.numpy()])].to(device)
        sum_ND.index_add_(0, rows, unit(task.embed(images)))
    known = sum_ND.norm(dim=1) > 0
    id_N, mean_ND = new_N[known.cpu()], unit(sum_ND[known])
    if len(id_N):
        before = head.read_rows(id_N)
        means = mean_ND.repeat_interleave(len(before) // len(id_N), dim=0)
        head.write_rows(id_N, means * before.norm(dim=1, keepdim=True))

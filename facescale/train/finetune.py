"""Start a run from another one: its network, and the class centres of the identities they share."""

from pathlib import Path

from facescale.checksums import Checksums
from facescale.config import Config
from facescale.data.identities import old_numbers
from facescale.data.readers.base import Reader
from facescale.inference.load import load
from facescale.run import RunDir
from facescale.train.checkpoint import damage_of
from facescale.train.task import RecognitionTask

# N identities of the new run


def inherit(config: Config, task: RecognitionTask, reader: Reader) -> int:
    """Take over what ``config.train.init`` names; all processes call.

    From a run: the network of its best checkpoint and, if both heads keep a centre for every identity, the
    centres with their optimizer state; new identities start with new centres, removed ones are left out. From
    a weights file: the network.

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
    if run is None or not task.head.keeps_every_id:
        return 0
    if not (folder / "centres").is_dir():  # that head has no centre for every identity
        return 0
    old_ids = old_numbers(run.identities, config, reader)
    known = int((old_ids >= 0).sum())
    if known:
        task.head.inherit_rows(folder, old_ids)
    return known

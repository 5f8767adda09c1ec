"""Start a run from another one: its network, and its class centres for the people that both know."""

from pathlib import Path

from facescale.config import Config
from facescale.data.identities import old_numbers
from facescale.data.readers.base import Reader
from facescale.heads.centre_head import CentreHead
from facescale.inference.load import load
from facescale.run import RunDir
from facescale.train.task import RecognitionTask

# N identities of the new run


def inherit(config: Config, task: RecognitionTask, reader: Reader) -> int:
    """Take over what ``config.train.init`` names; all processes call.

    A run gives the network of its best checkpoint and, if both heads keep a centre for every identity, the
    centres and their optimiser's state; who is new starts with a fresh centre, who is gone is left out. A
    weights file gives the network.

    Returns:
        How many identities have their centre from there.

    Raises:
        ValueError: there is no run and no weights file, or it does not fit.
    """
    path = Path(config.train.init)
    model = load(path, device="cpu")
    try:
        task.start_with(model.module.state_dict())
    except RuntimeError:
        theirs = (model.card.backbone or {}).get("name", "unknown"), model.embedding_size
        ours = config.backbone.name, config.backbone.embedding_size
        raise ValueError(
            f"the network of train.init = '{path}' ({theirs[0]}, {theirs[1]} numbers an embedding) does not "
            f"fit the config's ({ours[0]}, {ours[1]}); make [backbone] the same"
        ) from None
    if not path.is_dir() or not isinstance(task.head, CentreHead):
        return 0
    run = RunDir.open(path)
    folder = run.model_path().parent
    if not (folder / "centres").is_dir():  # its head keeps none
        return 0
    old_ids = old_numbers(run.identities, config, reader)
    known = int((old_ids >= 0).sum())
    if known:
        task.head.load_rows(folder, old_ids)
    return known

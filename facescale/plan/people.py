"""The identities of a run that starts from another one: those of its data, and those of the old run."""

from pathlib import Path

from facescale import heads
from facescale.config import Config, FinetuneConfig
from facescale.data.identities import num_identities, with_people_of
from facescale.data.readers.base import Reader
from facescale.plan.plan import Counts
from facescale.run import RunDir


def people(config: Config, reader: Reader) -> Reader:
    """The data with the identities that the head shall have: those of the old run too, where it is extended.

    Raises:
        ValueError: options of ``finetune`` that do not fit the rest of the config.
    """
    if not _keeps_old_people(config):
        return reader
    return with_people_of(RunDir.open(config.train.init).identities, config, reader)


def with_old_people(config: Config, counts: Counts) -> Counts:
    """Numbers of data that is not at hand, with the people of the old run that the head keeps.

    All people of the data count as new: it is not known which of them the old run had.

    Raises:
        ValueError: as ``people``.
    """
    if not _keeps_old_people(config):
        return counts
    old = num_identities(RunDir.open(config.train.init).identities, config)
    return Counts(counts.num_ids + old, counts.num_images)


def _keeps_old_people(config: Config) -> bool:
    wanted = config.finetune
    if not config.train.init and wanted != FinetuneConfig():
        without_start = FinetuneConfig(teacher=wanted.teacher, distil=wanted.distil, mix=wanted.mix)
        if wanted != without_start or not wanted.teacher:
            raise ValueError(
                "[finetune] is for a run that starts from another one; set train.init to a run or weights, "
                "or take the section out"
            )
    if wanted.head not in ("extend", "keep"):
        return False
    keeps_every_id = getattr(heads.HEADS[config.head.name], "keeps_every_id", False)
    if not Path(config.train.init).is_dir() or not keeps_every_id:
        raise ValueError(
            f"finetune.head = '{wanted.head}' needs the class centres of a run in train.init and a head "
            f"that keeps one for everybody; '{config.train.init}' with head '{config.head.name}' has "
            "none: use 'replace'"
        )
    if config.head.margin.by_source:
        raise ValueError(
            f"finetune.head = '{wanted.head}' does not go with head.margin.by_source: people without "
            "images have no source; use 'inherit' or 'replace', or one margin for all"
        )
    return True

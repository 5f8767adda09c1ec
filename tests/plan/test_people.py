"""A plan counts the people that a head keeps of an old run."""

from pathlib import Path

import torch

from facescale.config import load_config
from facescale.data import open_reader
from facescale.data.identities import write_identities
from facescale.plan.advice import advice_for
from facescale.plan.plan import Counts
from tests.tiny import TINY


def old_run(folder: Path) -> Path:
    """As much of a run as people need: 12 of them."""
    config = load_config(None, TINY)
    folder.mkdir()
    (folder / "config.toml").write_text(config.to_toml())
    write_identities(folder / "identities.json", config, open_reader(str(config.data.train)))
    return folder


def planned(old: Path, head: str, counts: Counts | None) -> int:
    data = ["data.train=synthetic:ids=15,images=8,size=32", f"train.init={old}", f"finetune.head={head}"]
    config = load_config(None, [*TINY, *data])
    return advice_for(config, 1, torch.device("cpu"), None, data=counts).plan.num_ids


def test_old_people_are_counted_where_the_head_keeps_them(tmp_path: Path) -> None:
    old = old_run(tmp_path / "old")
    (old / "identities.json").write_text((old / "identities.json").read_text().replace("[12]", "[20]"))
    assert planned(old, "replace", None) == 15
    assert planned(old, "extend", None) == 20, "the 15 people of the data are among the 20"
    assert planned(old, "keep", Counts(7, 80)) == 27
    assert planned(old, "replace", Counts(7, 80)) == 7

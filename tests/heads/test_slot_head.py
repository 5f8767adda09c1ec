"""What AttFC's container and F2C's pool have in common: saving and reading their rows."""

from pathlib import Path

import pytest

from facescale import heads
from facescale.heads.slot_head import SlotHead
from tests.heads.slot_heads import DIM, NUM_IDS


def make(name: str) -> SlotHead:
    head = heads.build(name, NUM_IDS, DIM, "cosface", size=12)
    assert isinstance(head, SlotHead)
    return head


@pytest.mark.parametrize("name", ["attfc", "f2c"])
def test_a_folder_without_slots_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no slots of a container or pool in .*; use a whole checkpoint"):
        make(name).load_rows(tmp_path)


@pytest.mark.parametrize("name", ["attfc", "f2c"])
def test_a_folder_that_lacks_the_slots_of_a_process_is_refused(name: str, tmp_path: Path) -> None:
    head = make(name)
    head.save_rows(tmp_path)
    (tmp_path / "slots_000000000000.safetensors").rename(tmp_path / "slots_000000000003.safetensors")
    with pytest.raises(ValueError, match=r"slots 0 to 2 are missing in .*; use a whole checkpoint"):
        head.load_rows(tmp_path)

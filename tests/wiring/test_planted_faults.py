"""The table of planted faults and the edit of a fault; ``benchmarks/planted_faults.py`` plants them all."""

from pathlib import Path

import pytest

from benchmarks.planted_faults import Fault, problems, read_faults


@pytest.mark.slow
def test_every_planted_fault_can_still_be_planted() -> None:
    assert problems(read_faults()) == []


def test_names_of_faults_are_distinct() -> None:
    names = [fault.name for fault in read_faults()]
    assert len(names) == len(set(names)) > 80


def test_a_fault_is_one_edit_of_a_text_that_is_there_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = 2\ny = 2\n")
    assert Fault("two", "a.py", "x = 1", "x = 2", ()).planted(tmp_path) == "x = 2\ny = 2\ny = 2\n"
    for old, count in (("z", 0), ("y = 2", 2)):
        with pytest.raises(ValueError, match=rf"holds this text {count} times, not once"):
            Fault("none", "a.py", old, "", ()).planted(tmp_path)
    with pytest.raises(ValueError, match=r"facescale/b\.py holds this text 0 times"):
        Fault("none", "b.py", "x", "", ()).planted(tmp_path)


def test_a_fault_without_its_tests_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    there = Fault("there", "a.py", "x = 1", "", ("wiring/test_planted_faults.py::any",))
    gone = Fault("gone", "a.py", "x = 1", "", ("wiring/test_nothing.py",))
    assert problems([there, gone], tmp_path) == ["gone: there is no tests/wiring/test_nothing.py"]

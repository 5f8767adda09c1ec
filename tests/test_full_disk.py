"""A full disk is told in a sentence: which disk, for what, how much is missing; nothing half-written."""

import errno
import os
import re
from pathlib import Path

import pytest

from facescale.files import NoSpaceError, is_full_disk, naming_full_disk, replacing, write_atomically
from facescale.run import RunDir

ENOSPC = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_missing_is_said_where_it_is_known(tmp_path: Path) -> None:
    with pytest.raises(NoSpaceError) as raised, naming_full_disk(tmp_path / "a" / "b", 10**18):
        raise ENOSPC
    size = r"\d+\.\d MB"
    assert re.fullmatch(
        rf"no space left on the disk at /\S* for '{tmp_path}/a/b': {size} are missing "
        rf"\({size} needed, {size} free\); free space there and run the same command again",
        str(raised.value),
    )


def test_where_it_is_not_known_what_is_free_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(
            NoSpaceError, match=r"for the report: it takes more than is free \(.* MB\); free space"
        ),
        naming_full_disk(tmp_path, what="the report"),
    ):
        raise ENOSPC


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (ENOSPC, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (OSError("1048576 requested and 131056 written"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("(os error 281)"), False),
        (ValueError("2 requested"), False),
    ],
)
def test_what_libraries_say_of_a_full_disk_is_known(error: Exception, full: bool) -> None:
    assert is_full_disk(error) is full
    with pytest.raises(NoSpaceError if full else type(error)), naming_full_disk("/"):
        raise error


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, "old")
    with pytest.raises(NoSpaceError, match=rf"for '{file}'"), replacing(file) as temporary:
        temporary.write_text("half")
        raise ENOSPC
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_metrics_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path)

    class Full:
        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, line: str) -> None:
            raise ENOSPC

    monkeypatch.setattr(Path, "open", lambda self, *_, **__: Full())
    with pytest.raises(NoSpaceError, match=r"metrics.jsonl': it takes more than is free"):
        run.log("train", step=1)

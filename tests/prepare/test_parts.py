"""facescale.prepare.parts: jobs of an array, and workers of a cluster, make what one machine makes."""

import os
import signal
import sys
from pathlib import Path

import pytest

from facescale.data.loading.decode import encode_jpeg
from facescale.jobs import Part
from facescale.jobs.lock import lock_folder
from facescale.prepare.parts import examine_into, part_folders
from facescale.prepare.pipeline import PartDone, prepare, prepare_part
from facescale.prepare.quality import Limits
from tests.pictures import picture
from tests.prepare.test_pipeline import contents, interrupt, options, photos

__all__ = ["photos"]  # the fixture


@pytest.fixture
def whole(photos: Path, tmp_path: Path) -> dict[str, bytes]:
    """What one machine makes of the photos."""
    prepare(photos, tmp_path / "whole", options(tmp_path))
    return contents(tmp_path / "whole")


def do(photos: Path, tmp_path: Path, number: int, count: int = 3, progress=None, **changed) -> PartDone:
    return prepare_part(photos, tmp_path / "out", options(tmp_path, **changed), Part(number, count), progress)


def test_the_job_that_ends_last_joins_the_parts_to_what_one_machine_makes(
    photos: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    first, second = do(photos, tmp_path, 2), do(photos, tmp_path, 3)
    assert [str(part) for part in first.waiting] == ["1/3", "3/3"]
    assert [str(part) for part in second.waiting] == ["1/3"] and not (tmp_path / "out").exists()
    last = do(photos, tmp_path, 1)
    assert last.joined is not None and last.waiting == []
    assert first.photos + second.photos + last.photos == last.joined.continued == 19
    assert contents(tmp_path / "out") == whole
    assert not (tmp_path / ".out.preparing").exists()


def test_a_lost_job_is_started_again_and_costs_its_unfinished_photos_only(
    photos: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    do(photos, tmp_path, 2, 2)
    with pytest.raises(KeyboardInterrupt):
        do(photos, tmp_path, 1, 2, interrupt(4))
    again = do(photos, tmp_path, 1, 2)
    assert again.continued == 4 and again.joined is not None
    assert contents(tmp_path / "out") == whole


def test_the_command_without_a_part_does_what_lost_jobs_have_not(
    photos: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    done = do(photos, tmp_path, 3).photos
    with pytest.raises(KeyboardInterrupt):
        do(photos, tmp_path, 1, progress=interrupt(2))
    (tmp_path / ".out.preparing" / "parts" / Part(2, 3).name).mkdir()  # of a job that was killed at once
    assert prepare(photos, tmp_path / "out", options(tmp_path)).continued == done + 2
    assert contents(tmp_path / "out") == whole


def test_a_part_that_was_done_with_other_settings_or_is_being_done_does_not_count(
    photos: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    pytest.importorskip("fcntl")
    do(photos, tmp_path, 1, 2)
    with (tmp_path / "points.txt").open("a") as file:
        file.write("z/z.jpg 1 2 3 4 5 6 7 8 9 10\n")
    assert [str(part) for part in do(photos, tmp_path, 2, 2).waiting] == ["1/2"]
    work = tmp_path / ".out.preparing"
    with lock_folder(work, shared=True):
        assert do(photos, tmp_path, 1, 2).joined is None  # the job that holds the lock joins
        with pytest.raises(ValueError, match="another process works in"):
            prepare(photos, tmp_path / "out", options(tmp_path))
    with lock_folder(work / "parts" / "1-of-2"), pytest.raises(ValueError, match="another process works in"):
        do(photos, tmp_path, 1, 2)
    assert do(photos, tmp_path, 1, 2).joined is not None
    assert contents(tmp_path / "out") == whole


def test_more_jobs_than_photos(photos: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    done = [do(photos, tmp_path, number, 25) for number in range(1, 26)]
    assert any(one.photos == 0 for one in done) and done[-1].joined
    assert contents(tmp_path / "out") == whole


def test_the_command_says_what_is_waited_for(facescale, photos: Path, tmp_path: Path) -> None:
    words = ["prepare", str(photos), str(tmp_path / "out"), "--landmarks", str(tmp_path / "points.txt")]
    words += ["--workers", "1", "--min-sharpness", "0"]
    both, _, error = facescale(*words, "--shard", "1/2", "--cluster", "tcp://x:1")
    assert both == 2 and "--shard and --cluster both share out the work" in error
    _, out, _ = facescale(*words, "--shard", "2/2")
    assert "not done yet: 1/2; the job that ends last joins the parts" in out
    _, out, _ = facescale(*words, "--shard", "1/2")
    assert "12 of 19 photos kept" in out


def test_a_worker_that_lacks_a_folder_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'.*nowhere' is missing on the worker .*; photos and data set"):
        examine_into(tmp_path / "nowhere" / "part", photos, ["a/0.jpg"], options(tmp_path).settings)


def test_a_cluster_that_loses_a_worker_makes_what_one_machine_makes(
    cluster, photos: Path, tmp_path: Path, monkeypatch
) -> None:
    for n in range(60):  # enough for several parts
        (photos / "a" / f"more{n}.jpg").write_bytes(encode_jpeg(picture(100 + n, 200)))
    prepare(photos, tmp_path / "whole", options(tmp_path))
    seen = []

    def kill_one(done: int, total: int) -> None:
        if not seen:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
        seen.append((done, len(part_folders(tmp_path / ".out.preparing"))))

    def nothing_is_left(root: Path, keys: list[str], *others: object) -> list[str]:
        assert not keys
        return keys

    monkeypatch.setattr("facescale.prepare.pipeline.examine_each", nothing_is_left)
    changed = options(tmp_path, cluster=cluster.scheduler_address)
    report = prepare(photos, tmp_path / "out", changed, kill_one).report
    assert (report.files, seen[-1]) == (79, (79, 0)) and len(seen) > 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with pytest.raises(ValueError, match="none of 79 photos is left"):
        prepare(
            photos, tmp_path / "none", options(tmp_path, cluster=changed.cluster, limits=Limits(min_face=300))
        )


def test_without_dask_the_extra_is_named(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"needs Dask; install it with: pip install 'facescale\[cluster\]'"):
        prepare(photos, tmp_path / "out", options(tmp_path, cluster="tcp://127.0.0.1:1"))

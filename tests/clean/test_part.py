"""facescale.clean.part: parts embedded apart, then a run that finds them."""

from pathlib import Path

import pytest

from facescale.clean.part import embed_shard
from facescale.clean.run import clean
from facescale.data import open_reader
from facescale.evaluate.feature_cache import CachedFeatures
from facescale.jobs import Part

pytestmark = pytest.mark.usefixtures("with_coarse_model")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facescale.clean.embedded._CHUNK", 50)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("count", [1, 3, 40])  # 40: more than there are chunks
def test_parts_give_the_findings_of_one_machine(
    planted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    (planted[0] / "p00" / "0.jpg").write_bytes(b"\xff\xd8no picture")
    data, tests = open_reader(planted[0]), [f"mine={planted[1]}"]
    whole = clean(data, "any", tmp_path / "one", tests)
    parts = reversed(Part(1, count).all())
    done = [embed_shard(data, "any", tmp_path / "out", part, tests) for part in parts]
    assert sum(done) == whole.images + len(open_reader(planted[1]))
    kept = sorted((tmp_path / "out" / "features").rglob("*.npy"))
    again = clean(data, "any", tmp_path / "out", tests)
    assert sorted((tmp_path / "out" / "features").rglob("*.npy")) == kept  # nothing was embedded again
    assert again.findings == whole.findings and again.bad == whole.bad
    ours, theirs = _files(tmp_path / "out"), _files(tmp_path / "one")
    assert ours["edits.csv"] == theirs["edits.csv"] and ours["findings.csv"] == theirs["findings.csv"]


def test_a_lost_part_is_computed_by_the_run(planted: tuple[Path, Path], tmp_path: Path) -> None:
    data = open_reader(planted[0])
    whole = clean(data, "any", tmp_path / "one")
    embed_shard(data, "any", tmp_path / "out", Part(2, 3))
    assert clean(data, "any", tmp_path / "out").findings == whole.findings


def test_the_progress_of_a_part_ends_at_its_images(planted: tuple[Path, Path], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    data = open_reader(planted[0])
    for part in Part(1, 3).all():
        embed_shard(data, "any", tmp_path, part, progress=lambda *one: told.append(one))
    ends = [total for _, done, total in told if done == total]
    assert len(ends) == 3 and sum(ends) == len(data)


def test_a_file_that_another_job_renames_meanwhile_costs_no_embedding(
    planted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.glob

    def with_a_file_that_is_gone(folder: Path, pattern: str):  # type: ignore[no-untyped-def]
        yield from real(folder, pattern)
        if pattern == "*/*.npy":
            yield folder / "gone" / ".1.units.npy"

    monkeypatch.setattr(Path, "glob", with_a_file_that_is_gone)
    data = open_reader(planted[0])
    embed_shard(data, "any", tmp_path, Part(1, 1))
    (folder,) = (tmp_path / "features").iterdir()
    assert len(CachedFeatures(folder, 1 << 40)._table) == len(data)

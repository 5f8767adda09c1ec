"""facescale clean --cluster: the workers embed, and the findings are those of one machine."""

import os
import signal
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from facescale.clean import embedded
from facescale.clean.part import CleanJob, embed_into
from facescale.clean.run import Options

TEST = "synthetic:ids=3,images=2,size=32"
CHUNK = 12
IMAGES, DATA = (
    60,
    "synthetic:ids=10,images=6,size=32",
)  # the first photos of its first people are those of TEST


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_CHUNK", CHUNK)


def _job(run: Path, out: Path) -> CleanJob:
    return CleanJob(DATA, str(run), str(out), (f"mine={TEST}",), (), Options(workers=1, device="cpu"))


def _kept(out: Path) -> list[tuple[int, ...]]:
    """Digests of all embeddings that are kept."""
    tables = [np.load(path) for path in (out / "features").rglob("*.index.npy")]
    return [tuple(row) for table in tables for row in table["digest"].tolist()]


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_finds_what_one_machine_finds(  # type: ignore[no-untyped-def]
    cluster, trained_tiny_run: Path, facescale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["clean", DATA, "--model", trained_tiny_run, "--against", f"mine={TEST}", "--device", "cpu"]
    words += ["--near", "0.9999", "--out"]  # few pairs are compared by their pixels, which takes long
    assert facescale(*words, tmp_path / "one")[0] == 0
    told: list[tuple[str, int, int]] = []

    def kill_one(*one: object) -> None:
        if not told:
            os.kill(cluster.workers[1].pid, signal.SIGKILL)
        told.append(one)  # type: ignore[arg-type]

    monkeypatch.setattr("facescale.cli.clean._bar", lambda enabled: nullcontext(kill_one))
    monkeypatch.setattr(embedded, "_computed", None)  # this machine embeds nothing
    code, text, _ = facescale(*words, tmp_path / "out", "--cluster", cluster.scheduler_address)
    assert code == 0 and f"{IMAGES} images of 10 identities" in text
    assert len(told) == 2 * (IMAGES // CHUNK + 1) and told[-1] == ("mine", 6, 6)
    kept = _kept(tmp_path / "out")
    assert len(kept) == len(set(kept)) == IMAGES  # nothing that was kept was embedded twice
    for name in ("edits.csv", "findings.csv", "clean.html"):
        ours, theirs = ((tmp_path / out / name).read_bytes() for out in ("out", "one"))
        assert ours.partition(b"<footer>")[0] == theirs.partition(b"<footer>")[0]  # it tells the time


def test_a_worker_that_sees_other_files_is_named(trained_tiny_run: Path, tmp_path: Path) -> None:
    job = _job(trained_tiny_run, tmp_path / "out")
    with pytest.raises(ValueError, match=r"'.*out' is missing on the worker .*; images, model and result"):
        embed_into(job, "", 0, [range(3)])
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"the worker .* finds another model or other images"):
        embed_into(job, "another", 0, [range(3)])


def test_a_part_of_an_array_and_a_cluster_are_not_both_given(facescale, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ["clean", DATA, "--model", "any", "--out", tmp_path, "--shard", "1/2", "--cluster", "tcp://x:1"]
    code, _, error = facescale(*words)
    assert code == 2 and "--shard and --cluster both share out the work" in error

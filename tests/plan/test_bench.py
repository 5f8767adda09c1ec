"""The measurement of heads: what can be asked for, that it is clean, and that it refuses what cannot run."""

import builtins
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facescale import heads
from facescale.config import load_config
from facescale.data import open_reader
from facescale.distributed import Dist
from facescale.heads import HEADS
from facescale.plan import bench, make_plan, measure, timing
from facescale.plan.bench import HeadFigures, bench_heads, parse_variants
from facescale.plan.measure import HeadVariant
from facescale.plan.plot import plot_heads
from facescale.plan.units import parse_counts

SMALL: dict[str, Any] = {"embedding_size": 16, "batch_size": 8, "seconds": 0.0, "device": "cpu"}


def test_variants_of_a_head_are_written_with_their_options() -> None:
    assert parse_variants("full,attfc:size=65536,unique=true,attfc:share=0.3,partial_fc:placement=disk") == [
        HeadVariant("full"),
        HeadVariant("attfc", {"size": 65536, "unique": True}),
        HeadVariant("attfc", {"share": 0.3}),
        HeadVariant("partial_fc", {"placement": "disk"}),
    ]


def test_a_variant_is_shown_as_it_is_written() -> None:
    texts = ["full", "attfc:size=65536,unique=true", "f2c:share=0.01", "partial_fc:placement=disk"]
    assert [str(one) for one in parse_variants(",".join(texts))] == texts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fulll", "unknown head 'fulll'"),
        ("share=0.3", "unknown head 'share=0.3'"),
        ("attfc:shares=0.3", r"head 'attfc' has no option 'shares' \(did you mean 'share'\?\)"),
        ("attfc:share", "'attfc:share': write attfc:share=VALUE"),
    ],
)
def test_a_wrong_variant_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_variants(text)


def test_numbers_of_identities_may_be_short() -> None:
    assert parse_counts("500, 100k,1.5M") == [500, 100_000, 1_500_000]
    with pytest.raises(ValueError, match="'1G' is not a number of identities; write 5000, 100k or 1M"):
        parse_counts("1G")


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_timed(name: str) -> None:
    seconds, peak = measure.measure_head(measure.Case(name, {}, 3000, 16, 8, "cosface", "cpu", 0.0, 1))
    assert seconds > 0
    assert peak is None or peak >= 0


def test_rows_on_disk_are_deleted_afterwards(tmp_path: Path) -> None:
    on_disk = HeadVariant("partial_fc", {"placement": "disk", "directory": str(tmp_path)})
    (one,) = bench_heads([on_disk], [3000], **SMALL)
    assert (one.head, one.num_ids, one.problem) == (str(on_disk), 3000, "")
    assert one.step_ms and one.images_per_second == pytest.approx(8000 / one.step_ms)
    assert not any(tmp_path.iterdir())


def test_memory_follows_the_number_of_identities_for_the_full_head() -> None:
    small, large = bench_heads([HeadVariant("full")], [2000, 200_000], **{**SMALL, "embedding_size": 64})
    assert large.planned_bytes > 20 * small.planned_bytes
    if large.peak_bytes is not None:  # rows and their momentum, float32
        assert large.peak_bytes > 0.9 * 200_000 * 64 * 8


def test_a_container_is_filled_before_it_is_measured() -> None:
    for name in ("attfc", "f2c"):
        head = heads.build(name, 200, 8, "cosface", share=0.5)
        head.fill()
        assert len(head.pool) == head.num_counting == 100
        assert head.rows.norm(dim=-1).allclose(head.rows.new_ones(()))
        assert measure._step(head, 4, 0) > 0


def test_what_does_not_fit_is_told_and_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "free_memory", lambda: 10**9)
    (one,) = bench_heads([HeadVariant("full")], [10**9], **{**SMALL, "embedding_size": 512})
    assert one.step_ms is None and one.peak_bytes is None
    assert re.match(r"needs 4\.10 TB of memory; the machine has ", one.problem)


def test_a_disk_that_is_too_small_is_told() -> None:
    on_disk = HeadVariant("partial_fc", {"placement": "disk", "num_negatives": 64})
    (one,) = bench_heads([on_disk], [10**9], **{**SMALL, "embedding_size": 512})
    assert "needs 4.10 TB of disk; the machine has " in one.problem


def test_all_mistakes_come_before_the_first_measurement() -> None:
    with pytest.raises(ValueError, match="no option 'rates'"):
        bench_heads([HeadVariant("full"), HeadVariant("partial_fc", {"rates": 1})], [1000], **SMALL)
    with pytest.raises(ValueError, match=r"the directory nowhere of partial_fc:.* does not exist; make it"):
        bench_heads(
            [HeadVariant("partial_fc", {"placement": "disk", "directory": "nowhere"})], [1000], **SMALL
        )


def test_a_system_that_does_not_tell_memory_gives_none(tmp_path: Path) -> None:
    assert measure._kernel_figure(str(tmp_path / "status"), "VmHWM") is None
    (tmp_path / "status").write_text("Name:\tx\nVmRSS:\t 12 kB\n")
    assert measure._kernel_figure(str(tmp_path / "status"), "VmHWM") is None
    assert measure._kernel_figure(str(tmp_path / "status"), "VmRSS") == 12 * 1024


def test_a_measurement_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run

    def killed(command: list[str], **kwargs: Any) -> Any:
        suicide = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return real([sys.executable, "-c", suicide], **kwargs)

    monkeypatch.setattr(subprocess, "run", killed)
    (one,) = bench_heads([HeadVariant("full")], [100], **SMALL)
    assert one.problem == "killed, probably out of memory (signal 9)" and one.step_ms is None


def test_time_of_a_head_is_estimated_from_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []
    monkeypatch.setattr(timing, "measure_head", lambda case: (measured.append(case) or 0.5, None))
    settings = ["data.train=synthetic:ids=40000,images=1", "train.batch_size=512", "train.accumulate=2"]

    def all_seconds(*head: str, processes: int = 1) -> list[tuple[str, float]]:
        config = load_config(None, [*settings, *head])
        plan = make_plan(config, Dist(0, processes), open_reader(config.data.train))
        return timing.head_seconds(config, plan)

    def seconds(*head: str, processes: int = 1) -> float:
        ((words, found),) = all_seconds(*head, processes=processes)
        assert words == ""
        return found

    # a quarter of the classes, half of the images of a part, two parts
    assert seconds() == pytest.approx(0.5 * 4 * 2 * 2)
    assert (measured[-1].num_ids, measured[-1].batch_size) == (10_000, 128)
    # two processes: each has half of the classes, and a part of the batch is that of both
    assert seconds(processes=2) == pytest.approx(0.5 * 2 * 2 * 2)
    # 4,000 classes are looked at: all of them are measured
    assert seconds("head.name=partial_fc", "head.rate=0.1") == pytest.approx(0.5 * 2 * 2)
    assert measured[-1].num_ids == 40_000
    # several rates: each is measured
    rates = all_seconds("head.name=partial_fc", "head.rate=[0.1, 0.3, 1.0]")
    assert [words for words, _ in rates] == ["rate 0.1", "rate 0.3", "rate 1"]
    assert [case.options["rate"] for case in measured[-3:]] == [0.1, 0.3, 1.0]
    # 12,000 and 40,000 classes are looked at, of which 9,999 and 10,000 are measured
    assert [found for _, found in rates] == pytest.approx([2, 2 * 12_000 / 9_999, 8], rel=1e-3)


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = [
        HeadFigures("full", 1000, 1.0, 8000.0, 10**6, 2 * 10**6),
        HeadFigures("full", 10**9, None, None, 10**12, None, "needs more"),
    ]
    plot_heads(figures, tmp_path / "heads.png")
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"plots need matplotlib; install facescale\[plot\]"):
        plot_heads([], tmp_path / "heads.png")

"""Pairs drawn from a data set, written as a file that evaluates again."""

from pathlib import Path

import pytest

from facescale.data import open_reader
from facescale.data.writers.folder import write_folder
from facescale.data.writers.lmdb import write_lmdb
from facescale.data.writers.parquet import write_parquet
from facescale.data.writers.recordio import write_records
from facescale.data.writers.shards import write_shards
from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.protocols.write import write_protocol

SPEC = "synthetic:ids=12,images=4,size=32"


@pytest.mark.parametrize("suffix", [".csv", ".bin"])
def test_pairs_of_a_folder_evaluate_again(tmp_path: Path, suffix: str) -> None:
    write_folder(open_reader(SPEC), tmp_path / "faces")
    out = tmp_path / f"pairs{suffix}"
    write_protocol(str(tmp_path / "faces"), out, 40, 4, 0)
    spec = f"{out}?root={tmp_path / 'faces'}" if suffix == ".csv" else str(out)
    assert open_protocol(spec, 32).name == "pairs"


def test_as_many_pairs_are_sampled_as_the_images_allow(tmp_path: Path) -> None:
    assert write_protocol(SPEC, tmp_path / "pairs.bin", None, 4, 0) == 144  # 12 identities have 6 pairs each
    assert len(open_protocol(str(tmp_path / "pairs.bin"), 32).pairs.is_same) == 144


@pytest.mark.parametrize("write", [write_records, write_lmdb, write_parquet, write_shards])
def test_a_csv_cannot_name_images_that_are_no_files(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    if write is write_lmdb:
        pytest.importorskip("lmdb")
    if write is write_parquet:
        pytest.importorskip("pyarrow")
    (tmp_path / "faces").mkdir()
    write(open_reader(SPEC), tmp_path / "faces")
    with pytest.raises(ValueError, match="not files below a folder, so a CSV cannot name them"):
        write_protocol(str(tmp_path / "faces"), tmp_path / "pairs.csv", 40, 4, 0)
    assert not (tmp_path / "pairs.csv").exists()
    write_protocol(str(tmp_path / "faces"), tmp_path / "pairs.bin", 40, 4, 0)
    assert open_protocol(str(tmp_path / "pairs.bin"), 32).name == "pairs"


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its suffix must be \.csv or \.bin"):
        write_protocol(SPEC, tmp_path / "pairs.txt", 40, 4, 0)

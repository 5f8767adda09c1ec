"""A small, fixed sample of the fuzz; ``python -m tests.fuzz.run`` is the whole of it."""

from pathlib import Path

import pytest

from tests.fuzz.run import Fuzzer, fuzz
from tests.fuzz.targets import Target


def test_a_sample_of_damaged_files_gets_sentences_only(tmp_path: Path) -> None:
    fuzzer = Fuzzer(tmp_path, seed=2026)
    assert len(fuzzer.targets) > 50
    wrong = [(number, *fuzzer.one(number)) for number in range(6 * len(fuzzer.targets))]
    assert not [(number, target.name, text) for number, target, text in wrong if text]


def test_every_undamaged_file_is_read(tmp_path: Path) -> None:
    network, picture = "is not a supported network", "not a JPEG, PNG, BMP or WebP image"
    refused = dict.fromkeys(("pth zip", "pth row", "foreign safetensors"), network)
    refused |= dict.fromkeys(("gif", "tiff"), picture)  # by all but `open_photo`
    for target in Fuzzer(tmp_path, seed=0).targets:
        if target.name in refused:
            with pytest.raises(ValueError, match=refused[target.name]):
                target.read(target.folder)
        else:
            target.read(target.folder)


def hangs(folder: Path) -> None:
    while True:
        pass


def test_the_fuzzer_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.run.SECONDS", 0.3)
    (tmp_path / "x").write_bytes(b"some text")
    reads = {
        "raw": lambda folder: int("x"),
        "other": lambda folder: {}["x"],
        "large": lambda folder: bytearray(4 << 30),
        "long": hangs,
        "fine": lambda folder: None,
    }
    fuzzer = Fuzzer(tmp_path / "none", seed=0, only="no such target")
    fuzzer.targets = [Target(name, tmp_path, "x", read) for name, read in reads.items()]
    fuzzer.originals = [b"some text"] * len(reads)
    findings = dict((name, text) for _, name, text in fuzz(fuzzer, len(reads)))
    assert findings.keys() == {"raw", "other", "large", "long"}
    assert findings["raw"].startswith('ValueError: "invalid literal')
    assert findings["other"].startswith("KeyError")
    assert findings["large"].startswith("MemoryError")
    assert findings["long"].startswith("takes more than 0.3 s")

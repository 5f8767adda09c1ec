"""Every code block of the pages is run as it is printed, or ``OTHERS`` says what does.

``test_walk`` runs the blocks for one's own photos, ``tests/examples/test_readme.py`` the README's Python.
"""

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facescale import backbones
from facescale.data.readers.edits import read_edits
from facescale.evaluate.protocols.write import write_protocol
from facescale.prepare.align import TEMPLATE
from tests.docs.test_walk import ROOT, SHORT, _photos, blocks, commands
from tests.evaluate.protocols.test_released_lists import write_lfw
from tests.evaluate.test_shares import ijb_folder

__all__ = ["_photos"]

PAGES = ("prepare", "guide", "clean", "protocols", "losses", "formats")  # in an order in which files exist
OTHERS = {
    "README": "test_walk and test_readme",
    "quickstart": "test_walk",
    "CONTRIBUTING": ".ci/run",
    "index": ".ci/wheel",
    "distributed": "tests/distributed and tests/e2e",
    "results": "hours; test_commands checks the options",
    "benchmarks": "hours; test_commands checks the options",
}
SMALL = [*SHORT, "--set", "eval.sets.unseen=synthetic:pairs=60"]
JOB = "$SLURM_ARRAY_TASK_ID"  # of 16
CLUSTER = "--cluster"  # tests/prepare and tests/clean, with two workers


@pytest.fixture
def _files(_photos: None) -> None:
    """What the pages name beside the photos and what they make of them."""
    for name in ("lfw", "LFW_FOLDER"):
        write_lfw(Path(name))
    ijb_folder(Path("IJBC_FOLDER"))
    shutil.copytree("photos_test", "lfw_test")
    torch.save(backbones.build("r18", 64, input_size=112).state_dict(), "backbone.pth")
    write_protocol("synthetic:ids=12,images=5", Path("test.bin"), None, 10, 0)


def run_block(language: str, block: str, names: dict[str, Any], facescale: Any) -> None:
    if language == "toml":
        Path("block.toml").write_text(block, encoding="utf-8")
        code, _, err = facescale("config", "block.toml")
        assert code == 0, err
    elif language == "python":
        exec(block, names)
    elif block.startswith("action,"):
        Path("edits.csv").write_text(block, encoding="utf-8")
        assert read_edits(["edits.csv"])
    else:
        assert not language, f"who runs {language}?"
        jobs = [block.replace(JOB, str(job)) for job in range(1, 17)] if JOB in block else [block]
        for words in commands("".join(jobs)):
            if CLUSTER in words:
                continue
            if words[0] == "prepare" and "1/16" in words:
                shutil.rmtree("faces")  # the page makes the same data set in another way
            code, _, err = facescale(*words, *(SMALL if words[0] == "train" else ()))
            assert code == 0, f"facescale {shlex.join(words)}: {err}"


@pytest.mark.usefixtures("_files")
def test_the_blocks_work_as_printed(facescale) -> None:  # type: ignore[no-untyped-def]
    faces = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    names: dict[str, Any] = {"images": faces, "photo": faces[0], "landmarks": TEMPLATE}
    for page in PAGES:
        for language, block in blocks((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")):
            run_block(language, block, names, facescale)
        if page == "prepare":  # thresholds for the next page, as the quick start takes them
            strangers = "everyone=all_pairs:synthetic:ids=12,images=5"
            assert facescale("evaluate", "runs/mine", "--on", strangers, "--adopt")[0] == 0
    assert Path("faces/manifest.json").is_file() and Path("check/edits.csv").is_file()
    assert names["rows"].shape == (2, names["model"].embedding_size)


def test_every_page_with_blocks_is_run_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert {page.stem for page in pages if blocks(page.read_text(encoding="utf-8"))} <= {*PAGES, *OTHERS}

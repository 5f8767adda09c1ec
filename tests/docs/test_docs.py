"""The README's commands are the ones that CI and the tests run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_readme_test_command_is_what_ci_runs() -> None:
    command = "pip install -q -c constraints.txt -e '.[dev]' && pytest -n auto --dist worksteal"
    assert command in (ROOT / "README.md").read_text()
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_output_in_the_readme_is_what_the_demo_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from facescale.cli.progress import Display
    from facescale.distributed import Dist
    from facescale.plan.plan import Counts, make_plan
    from facescale.recipes.demo import demo_config

    cpu = ["train.precision=fp32"]  # whatever this machine has
    plan = make_plan(demo_config(cpu), Dist(0, 2), Counts(1000, 40_000))
    line = {"epoch": 0.032, "loss": 8.48, "target_cosine": 0.004, "lr": 0.00154, "images_per_s": 144.0}
    with Display(True) as display:
        display.line({"kind": "start", "step": 0}, plan)
        display.line({"kind": "train", "step": 20, "wait_share": 0.05, **line}, plan)
    assert capsys.readouterr().out in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for file in path.glob("*.md") if path.is_dir() else [path]:
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"


def test_the_architecture_page_has_the_layers_of_the_import_test() -> None:
    from tests.test_imports import LAYERS

    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
    layers = {int(number): set(re.findall(r"`(\w+)`", rooms)) for number, rooms in rows}
    package = ROOT / "facescale"
    present = {path.stem for path in package.iterdir()}  # a layer may be reserved for a later room
    assert layers == {number: rooms & present for number, rooms in enumerate(LAYERS, start=1)}

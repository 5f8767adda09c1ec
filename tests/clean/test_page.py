"""facescale.clean.page: names are escaped, and the page can be read on a phone."""

from pathlib import Path

import pytest

from facescale.clean.finding import KINDS, MISLABELLED, Finding
from facescale.clean.page import MOST_SHOWN, write_page
from facescale.clean.run import Report
from facescale.clean.threshold import Threshold
from facescale.data.images import IndexedImages
from tests.browser import Browser
from tests.pictures import picture

EVIL = '"><script>document.title="owned"</script>\u202e.jpg'
LONG = "a_name_without_any_place_to_break_" * 4


def report(findings: list[Finding]) -> Report:
    thresholds = {MISLABELLED: Threshold(0.5, 0.8, 0.7), KINDS[1]: Threshold(float("inf"), float("nan"), 0.0)}
    return Report(Path("out"), 100, 10, {}, 0.5, {MISLABELLED: 1}, thresholds, 0.9, findings)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    images = IndexedImages([picture(n, 112) for n in range(4)] + [b"broken"], [EVIL, LONG, "c", "d", "e"])
    shown = (EVIL, ((0, 0), (0, 1))), (LONG, ((0, 2), (0, 3), (0, 4)))
    findings = [Finding(kind, EVIL, LONG, 0.5, "drop_image", where=LONG, shown=shown) for kind in KINDS]
    write_page(tmp_path / "clean.html", report(findings), [images])
    return tmp_path / "clean.html"


def test_names_are_escaped_and_every_picture_has_one(page: Path) -> None:
    text = page.read_text()
    assert "<script>document.title" not in text and "\u202e" not in text
    assert text.count("<img ") == text.count("<img src=") == 4 * len(KINDS)
    assert text.count('alt="c"') == len(KINDS)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width, False)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.title") != "owned"


def test_a_long_list_is_cut_and_says_so(tmp_path: Path) -> None:
    many = [Finding(MISLABELLED, f"a/{n}", "b", 0.5, "drop_image") for n in range(MOST_SHOWN + 5)]
    write_page(tmp_path / "clean.html", report(many), None)
    text = (tmp_path / "clean.html").read_text()
    assert f"the first {MOST_SHOWN} of {MOST_SHOWN + 5}" in text
    assert "a/0<" in text and f"a/{MOST_SHOWN}<" not in text
    assert "weak on this data" in text and "0.500" in text

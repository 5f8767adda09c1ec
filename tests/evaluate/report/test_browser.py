"""The report in a browser: readable on a phone, in both themes, with the values under the pointer."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facescale.evaluate.analyses import Grouping, analysed
from facescale.evaluate.attributes import Attribute
from facescale.evaluate.figures import Figures
from facescale.evaluate.records import Record
from facescale.evaluate.report.page import write_report
from tests.browser import Browser
from tests.evaluate.report.test_page import HISTORY, MODEL, toy_result

WIDTHS = (390, 1280)
AGES = ("under 20", "20 to 40", "40 to 60", "over 60")
EVIL = '"><script>document.title="owned"</script>\u202e\x07.png'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    long = "a_name_without_any_place_to_break_" * 4
    groups = Attribute("a.csv", "age", {f"folder/{i}.png": AGES[i * len(AGES) // 480] for i in range(480)})
    results = analysed([toy_result("lfw"), toy_result(long, key=EVIL + "{}")], Grouping(groups, 0.1))
    values = {"rank1": 0.91, "tpir@fpir=0.1": 0.8, "threshold@fpir=0.1": 0.55}
    cmc = {"cmc": {"rank": [1, 2, 3], "rate": [0.91, 0.94, 0.95]}}
    search = Figures("who, a|b & c", "identification", "faces/", values, {"images": 1200}, (), cmc)
    records = [Record.of(result, MODEL, True) for result in (*results, search)]
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, records, HISTORY, EVIL, {"Config": {"train.lr": 0.1}}, everything=records)
    return path


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_has_the_theme_of_the_system(
    browser: Browser, page: Path, width: int, dark: bool, tmp_path: Path
) -> None:
    browser.open(page, width, dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.title") != "owned"
    (tmp_path / "page.png").write_bytes(browser.screenshot())
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("L"), np.float64)
    assert pixels.shape[1] == width and pixels.shape[0] > 2000
    assert (np.median(pixels) < 60) == dark


@pytest.mark.parametrize("width", WIDTHS)
def test_texts_of_charts_can_be_read(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    sizes = """[...document.querySelectorAll('figure > svg[data-lines]')].map(svg => svg.clientWidth / 480 *
        parseFloat(getComputedStyle(svg.querySelector('.tick')).fontSize))"""
    assert min(browser.value(sizes)) >= 10


def test_a_table_that_is_too_wide_scrolls_and_shows_that_it_does(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    wide = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 2)"
    assert browser.value(f"{wide}.length") > 0
    assert browser.value(f"{wide}.every(box => box.classList.contains('more') && box.tabIndex === 0)")


def test_values_are_shown_under_the_pointer_and_the_arrow_keys(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    box = browser.value(
        "(() => { const svg = document.querySelector('svg[data-lines]'); "
        "svg.scrollIntoView({behavior: 'instant'});"
        "const box = svg.getBoundingClientRect();"
        "return [box.left + box.width * 0.6, box.top + box.height / 2]; })()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    shown = "document.querySelector('figure output').innerText"
    assert browser.value(shown).startswith("lfw: 0.")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    assert browser.value(shown) == ""
    browser.value("document.querySelector('svg[data-lines]').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
    assert "at 0.00833" in browser.value(shown)


def test_tables_are_copied_as_markdown_latex_and_csv(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    buttons = "[...document.querySelector('#section-0 .table').querySelectorAll('button')]"
    texts = browser.value(
        f"(async () => {{ const done = []; for (const one of {buttons}) {{ one.click();"
        "await new Promise(go => setTimeout(go, 0)); done.push(one.dataset.text); } return done; })()"
    )
    markdown, latex, table = texts
    assert "| lfw | step_00000300 |" in markdown and markdown.splitlines()[1].startswith("|---|---|")
    assert r"who, a\|b & c" in markdown
    assert r"who, a|b \& c & step\_00000300" in latex and latex.endswith(r"\end{tabular}")
    rows = list(csv.reader(io.StringIO(table)))
    assert rows[1][:2] == ["lfw", "step_00000300"] and rows[3][0] == "who, a|b & c"
    assert len({len(row) for row in rows}) == 1


def test_without_a_script_everything_is_still_there(browser: Browser, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page, 1280)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.value("document.querySelectorAll('.copy, .cursor').length") == 0
    assert browser.value("document.querySelectorAll('figure details table').length") > 3
    assert "lfw: false-accept rate" in browser.value("document.querySelector('svg .dot title').textContent")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_a_heat_map_can_be_read_without_its_colours(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width, dark)
    cells = "[...document.querySelectorAll('.heat tbody td')]"
    assert browser.value(f"{cells}.map(cell => cell.innerText).includes('')") is False
    assert browser.value(f"{cells}.every(cell => cell.title.length > 10)")
    assert browser.value("document.querySelectorAll('.heat thead th[scope=col]').length") == 1 + len(AGES)
    channels = "getComputedStyle(cell).{}.match(/[\\d.]+/g).slice(0, 3).map(Number)"
    spread = f"""{cells}.map(cell => {{
        const ink = {channels.format("color")}, ground = {channels.format("backgroundColor")};
        const scale = getComputedStyle(cell).backgroundColor.startsWith('color(') ? 255 : 1;
        return Math.abs(ink[1] - ground[1] * scale); }})"""
    assert min(browser.value(spread)) > 50

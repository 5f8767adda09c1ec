"""The report: one page that needs nothing else, whatever is in it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from facescale.data.images import IndexedImages
from facescale.data.loading.decode import decode
from facescale.evaluate.hardest import NUM_HARDEST
from facescale.evaluate.protocols.pairs import Pairs, stratified_folds
from facescale.evaluate.records import MeasuredModel, Record
from facescale.evaluate.report.markup import visible
from facescale.evaluate.report.page import write_report
from facescale.evaluate.report.shapes import NUM_SERIES, series, shape
from facescale.evaluate.report.summary import found_of_100
from facescale.evaluate.report.svg import MAX_POINTS, Axis, Line, Mark, chart, linear_axis, log_axis, thin
from facescale.evaluate.verification import Verification, VerificationResult

MODEL = MeasuredModel("step_00000300", "0123456789abcdef" * 2, 300, "r18", "my faces", "CC-BY-4.0", "112x112")
VOID = {"meta", "input", "img", "br"}
HISTORY = [
    {"kind": "train", "step": 100, "loss": 20.0, "lr": 0.1, "images_per_s": 900.0, "target_cosine": 0.1},
    {
        "kind": "train",
        "step": 200,
        "loss": float("nan"),
        "lr": 0.1,
        "images_per_s": 950.0,
        "target_cosine": 0.2,
    },
    {"kind": "train", "step": 300, "loss": 9.0, "lr": 0.01, "images_per_s": 990.0, "target_cosine": 0.4},
    {"kind": "eval", "step": 300, "toy/accuracy": 0.91, "toy/auc": 0.95},
    {"kind": "health", "step": 100, "message": "the embeddings look collapsed"},
    {"kind": "health", "step": 200, "message": "the embeddings look collapsed"},
    {"kind": "bad_step", "step": 200, "loss": "nan"},
]


class Page(HTMLParser):
    """What a browser would find: elements in order, text, and whether every element is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def toy_result(name: str = "toy", num_pairs: int = 240, key: str = "folder/{}.png") -> VerificationResult:
    rng = np.random.default_rng(0)
    faces = rng.uniform(0, 255, (20, 16, 16, 3))
    person = np.stack([np.arange(num_pairs), np.arange(num_pairs) + np.arange(num_pairs) % 2], axis=1) % 20
    pictures = (faces[person.ravel()] + rng.normal(0, 200, (2 * num_pairs, 16, 16, 3))).clip(0, 255)
    images = IndexedImages(list(pictures.astype(np.uint8)), [key.format(i) for i in range(2 * num_pairs)])
    index, is_same = np.arange(2 * num_pairs), np.arange(num_pairs) % 2 == 0
    pairs = Pairs("toy", images, index[0::2], index[1::2], is_same, stratified_folds(is_same))
    return Verification(name, pairs, size=16).measure(lambda x: x.flatten(1).float() - 127.5)


@pytest.fixture(scope="module")
def result() -> VerificationResult:
    return toy_result()


def written(tmp_path: Path, *results: VerificationResult, **options) -> Page:
    records = [Record.of(result, MODEL, pictures=True) for result in results]
    write_report(tmp_path / "report.html", records, **options)
    return Page(tmp_path / "report.html")


def test_page_loads_nothing_from_elsewhere_and_runs_its_own_script_only(
    tmp_path: Path, result: VerificationResult
) -> None:
    page = written(tmp_path, result, history=HISTORY)
    assert page.all("script") == [{}] and not page.all("link") and not page.all("iframe")
    script = (tmp_path / "report.html").read_text().partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';") and policy.endswith(f"script-src 'sha256-{digest}'")
    targets = [
        value for _, at in page.elements for key, value in at.items() if key in ("src", "href", "xlink:href")
    ]
    assert all(target.startswith(("data:image/jpeg;base64,", "#")) for target in targets)
    assert not re.search(r"url\(|@import|https?:", (tmp_path / "report.html").read_text())
    assert not [key for _, at in page.elements for key in at if key.startswith("on")]


def test_page_shows_the_measured_figures(tmp_path: Path, result: VerificationResult) -> None:
    text = " ".join(written(tmp_path, result).text)
    assert f"{100 * result.accuracy.mean:.2f} %" in text
    assert f"{100 * result.curve.eer:.2f} %" in text
    assert f"{result.curve.auc:.4f}" in text
    assert all(word in text for word in ("step_00000300", MODEL.fingerprint, "my faces", "CC-BY-4.0"))
    point = result.points[0]
    assert (
        f"{point.threshold:.3f}" in text
        and f"{point.threshold_low:.3f} to {point.threshold_high:.3f}" in text
    )
    assert "FAR 0.01 needs 1,000 impostor pairs" in text


def test_results_json_holds_the_same_figures(tmp_path: Path, result: VerificationResult) -> None:
    written(tmp_path, result, history=HISTORY, title="run 7", info={"Config": {"lr": 0.1}})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert content["title"] == "run 7"
    assert content["results"][0]["accuracy"]["mean"] == result.accuracy.mean
    assert content["notes"] == [
        "in training, step 100 to 200: the embeddings look collapsed",
        "1 training steps were not finite and were skipped",
    ]
    assert content["info"] == {"Config": {"lr": 0.1}}


def test_hardest_pairs_are_the_extreme_scores_with_the_right_pictures(
    tmp_path: Path, result: VerificationResult
) -> None:
    page = written(tmp_path, result)
    genuine = np.sort(result.scores[result.pairs.is_same])[:NUM_HARDEST]
    impostor = np.sort(result.scores[~result.pairs.is_same])[::-1][:NUM_HARDEST]
    shown = [word for word in page.text if re.fullmatch(r"-?\d\.\d{3}", word)]
    expected = [f"{score:.3f}" for score in (*genuine, *impostor)]
    assert [word for word in shown if word in expected][-2 * NUM_HARDEST :] == expected
    first = page.all("img")[0]
    stored = result.pairs.images[int(first["alt"].split("/")[1].removesuffix(".png"))]
    pixels = decode(base64.b64decode(first["src"].partition(",")[2])).astype(int)
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels - stored).mean() < 40  # a JPEG of noise


def test_large_pictures_are_shrunk(tmp_path: Path) -> None:
    large = [np.full((300, 200, 3), shade, np.uint8) for shade in range(8)]
    same = np.arange(4) < 2
    pairs = Pairs(
        "x",
        IndexedImages(large, list("abcdefgh")),
        np.arange(4),
        np.arange(4, 8),
        same,
        stratified_folds(same),
    )
    torch.manual_seed(0)
    weight = torch.randn(16 * 16 * 3, 4)
    big = Verification("x", pairs, size=16).measure(lambda x: x.flatten(1).float() @ weight)
    source = written(tmp_path, big).all("img")[0]["src"]
    assert decode(base64.b64decode(source.partition(",")[2])).shape == (112, 75, 3)


def test_pictures_can_be_left_out(tmp_path: Path, result: VerificationResult) -> None:
    assert not written(tmp_path, result, pictures=False).all("img")


def test_a_collapsed_network_on_a_tiny_set_has_a_report_too(tmp_path: Path) -> None:
    images = IndexedImages([np.zeros((16, 16, 3), np.uint8)] * 8, list("abcdefgh"))
    same = np.arange(4) < 2
    pairs = Pairs("x", images, np.arange(4), np.arange(4, 8), same, stratified_folds(same))
    blind = Verification("x", pairs, size=16).measure(lambda x: torch.ones(len(x), 4))
    page = written(tmp_path, blind)
    assert "50.00 %" in page.text
    assert [region["aria-label"] for region in page.all("div") if "aria-label" in region][-1] == "Facts"
    assert "nan" not in (tmp_path / "report.html").read_text()


def test_names_cannot_inject_markup(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror="alert(2)">&amp;'
    history = [
        {"kind": "health", "step": 1, "message": evil},
        {"kind": "eval", "step": 1, f"{evil}/accuracy": 0.5},
    ]
    named = toy_result(name=evil, key=evil + "{}")
    page = written(tmp_path, named, history=history, title=evil, info={evil: {evil: evil}})
    assert len(page.all("script")) == 1
    assert all(image["src"].startswith("data:") and "onerror" not in image for image in page.all("img"))
    assert "".join(page.text).count(evil) > 8


def test_page_can_be_read_without_seeing_it(tmp_path: Path, result: VerificationResult) -> None:
    page = written(tmp_path, result, history=HISTORY, info={"Config": {"train": {"lr": 0.1}}})
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert all(head["scope"] in ("row", "col") for head in page.all("th"))
    drawings = [
        (i, at) for i, (tag, at) in enumerate(page.elements) if tag == "svg" and "aria-hidden" not in at
    ]
    assert drawings and all(at["role"] == "img" and at["tabindex"] == "0" for _, at in drawings)
    assert all(page.elements[i + 1][0] == "title" for i, _ in drawings)
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(region["aria-label"] for region in page.all("div") if region.get("role") == "region")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.all("a")} == {
        f"#{name}" for name in ids if name.startswith("section") or name == "main"
    }
    assert [meta["content"] for meta in page.all("meta") if meta.get("name") == "viewport"]


def test_theme_follows_the_system_and_can_be_chosen(tmp_path: Path, result: VerificationResult) -> None:
    page = written(tmp_path, result)
    assert [at["id"] for at in page.all("input")] == ["theme-auto", "theme-light", "theme-dark"]
    style = (tmp_path / "report.html").read_text()
    assert "color-scheme: light dark" in style
    assert ":has(#theme-dark:checked) { color-scheme: dark; }" in style


def test_protocols_of_one_name_have_a_section_each(tmp_path: Path, result: VerificationResult) -> None:
    page = written(tmp_path, result, result)
    assert len(page.all("section")) == 4  # summary, curves and twice the protocol


def test_training_alone_makes_a_report(tmp_path: Path) -> None:
    page = written(tmp_path, history=HISTORY)
    names = ("Loss", "Learning rate", "Throughput", "Accuracy during training")
    figures = list(dict.fromkeys(word for word in page.text if word in names))
    assert figures == ["Loss", "Accuracy during training", "Learning rate", "Throughput"]
    assert not (tmp_path / "results.json").exists()


def test_nothing_to_report_is_answered_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing to report: .*--on NAME=PATH"):
        write_report(tmp_path / "report.html", [])


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.913, 0.998], ["0.90", "0.92", "0.94", "0.96", "0.98", "1.00"]),
        ([3.2, 22.0], ["0", "5", "10", "15", "20", "25"]),
        ([0, 20000], ["0", "5k", "10k", "15k", "20k"]),
        ([-0.3, 0.9], ["-0.5", "0.0", "0.5", "1.0"]),
        ([0.0, 2e-5], ["0", "5e-6", "1e-5", "1.5e-5", "2e-5"]),
        ([7, 7], ["6.4", "6.6", "6.8", "7.0", "7.2", "7.4", "7.6"]),
    ],
)
def test_ticks_are_round_and_cover_the_values(values: list[float], ticks: list[str]) -> None:
    axis = linear_axis("x", np.array(values))
    assert [axis.text(tick) for tick in axis.ticks] == ticks
    assert axis.share(min(values)) >= -1e-9 and axis.share(max(values)) <= 1 + 1e-9


def test_logarithmic_axis_covers_whole_decades() -> None:
    axis = log_axis("FAR", 1 / 3000, 1)
    assert [axis.text(tick) for tick in axis.ticks] == ["1e-4", "1e-3", "0.01", "0.1", "1"]
    assert axis.share(np.array([1e-4, 1e-2, 1])).tolist() == [0, 0.5, 1]
    assert len(log_axis("FAR", 1e-12, 1).ticks) <= 8


def test_lines_are_drawn_where_their_values_say() -> None:
    axis = Axis("x", 0, 10, [0, 10], str)
    lines = [Line("one", np.array([0, 5, 10]), np.array([0, 10, 5]), "series-0", solid_from=5)]
    figure = chart("t", lines, axis, axis, [Mark(10, "end")])
    dashed, solid = figure.findall("./svg/polyline")
    assert (dashed.get("class"), dashed.get("points")) == ("line series-0 faint", "68.0,256.0 267.0,14.0")
    assert (solid.get("class"), solid.get("points")) == ("line series-0", "267.0,14.0 466.0,135.0")


def test_long_logs_are_thinned_to_means() -> None:
    x, y = thin(np.arange(10_000.0), np.arange(10_000.0) * 2)
    assert len(x) == len(y) == MAX_POINTS
    np.testing.assert_allclose(y, 2 * x)
    assert x.mean() == pytest.approx(4999.5)


def test_series_differ_in_shape_and_dash_and_not_in_colour_alone() -> None:
    axis = Axis("x", 0, 10, [0, 10], str)
    lines = [Line(str(n), np.array([0, 10]), np.array([n, n]), series(n)) for n in range(NUM_SERIES)]
    figure = chart("t", lines, axis, axis)
    assert len({line.get("stroke-dasharray") for line in figure.findall("./svg/polyline")}) == NUM_SERIES
    outlines = {(shape(series(n), 0, 0).tag, shape(series(n), 0, 0).get("points")) for n in range(NUM_SERIES)}
    assert len(outlines) == NUM_SERIES
    legend = figure.findall("./ul/li/svg/line")
    assert len({line.get("stroke-dasharray") for line in legend}) == NUM_SERIES


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x07b\x1b[31m", r"a\x07b\x1b[31m"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("caf\udce9", r"caf\xe9"),
        ("one\u2028two\ud800", r"one\u2028two\ud800"),
        ("tab\tand\nline, Zo\u00eb", "tab\tand\nline, Zo\u00eb"),
    ],
)
def test_characters_that_cannot_be_seen_are_shown_as_escapes(text: str, shown: str, tmp_path: Path) -> None:
    assert visible(text) == shown
    history = [
        {"kind": "eval", "step": 1, f"{text}/accuracy": 0.5},
        {"kind": "health", "step": 1, "message": text},
    ]
    page = written(tmp_path, history=history, title=text)
    assert shown in page.text


def test_anybody_is_told_what_a_threshold_does(tmp_path: Path, result: VerificationResult) -> None:
    text = " ".join(written(tmp_path, result).text)
    point = [one for one in result.points if one.usable][-1]
    assert f"call two faces the same person if their score is {point.threshold:.2f} or higher" in text
    assert f"Then 1 in {round(1 / point.far)} pairs of strangers passes" in text


@pytest.mark.parametrize(
    ("share", "count"), [(0.85, "85"), (0.999, "99.90"), (1.0, "100"), (0.0, "0"), (0.004, "0.40")]
)
def test_counts_of_a_hundred_do_not_hide_rare_errors(share: float, count: str) -> None:
    assert found_of_100(share) == count

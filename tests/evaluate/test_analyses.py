"""Analyses of results: by group, by quality, at thresholds of other sets."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from facescale.evaluate.analyses import Grouping, analysed, parse_quality
from facescale.evaluate.analysis_text import analysis_lines
from facescale.evaluate.attributes import Attribute
from facescale.evaluate.figures import Figures
from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.scored import ScoredImages
from facescale.evaluate.transfer import transferred

Command = Callable[..., tuple[int, str, str]]
SPEC = "synthetic:ids=60,images=4,size=32"
PAIRS = "synthetic:pairs=600,nuisance=0.5"


def colours(images_BHW3: torch.Tensor) -> torch.Tensor:
    """A network that sees the mean colour of 4 x 4 parts."""
    parts = images_BHW3.float().unfold(1, 8, 8).unfold(2, 8, 8).mean((-2, -1))
    return parts.flatten(1) - 127


def measured(spec: str, name: str) -> object:
    return open_protocol(spec, 32, flip=False, name=name).measure(colours)


def by_parity(scored: ScoredImages) -> Attribute:
    """Two groups: people of even and of odd number."""
    folders = {scored.key(int(index)).rpartition("/")[0] for index in scored.used}
    return Attribute(
        "a.csv", "side", {f: "odd" if int(f.rpartition("#")[2]) % 2 else "even" for f in folders}
    )


@pytest.fixture(scope="module")
def results() -> list:
    return [
        measured(PAIRS, "listed"),
        measured(f"all_pairs:{SPEC}", "every"),
        measured(f"identification:{SPEC}", "who"),
    ]


def test_thresholds_of_one_set_are_tried_on_the_others(results: list) -> None:
    listed, every, who = analysed(results)
    rows = listed.to_dict()["transfer"]["rows"]
    assert {row["chosen_on"] for row in rows} == {"every"} and "transfer" not in who.to_dict()
    for row in rows:
        assert row["threshold"] == dict(every.figures())[f"threshold@far={row['far']:g}"]
        impostor, genuine = (listed.scores[listed.pairs.is_same == kind] for kind in (False, True))
        assert row["fmr"] == pytest.approx(np.mean(impostor >= row["threshold"]))
        assert row["fnmr"] == pytest.approx(np.mean(genuine < row["threshold"]))
        assert row["fmr_low"] <= row["fmr"] <= row["fmr_high"]
        assert row["fnmr_low"] <= row["fnmr"] <= row["fnmr_high"]
    back = every.to_dict()["transfer"]["rows"]
    assert {row["chosen_on"] for row in back} == {"listed"}
    assert any("listed at the threshold of every for FAR 0.01" in line for line in analysis_lines(listed))


def test_a_threshold_below_what_was_kept_has_no_fmr(results: list) -> None:
    every = results[1].scored
    lowest = float(every.impostor.scores.min())
    found = transferred("other", {0.5: lowest, 0.01: lowest + 1e-3}, every)
    assert [row.fmr is None for row in found] == [True, False] and found[0].fnmr <= found[1].fnmr


def test_every_kind_of_scores_is_divided_into_groups(results: list) -> None:
    for result, keys in zip(results, (("fmr", "fnmr"), ("fmr", "fnmr"), ("fpir", "fnir")), strict=True):
        (grouped,) = analysed([result], Grouping(by_parity(result.scored)))
        tree = grouped.to_dict()["groups"]
        assert tree["images"].keys() == {"even", "odd"} and keys[0] in tree and keys[1] in tree
        lines = "\n".join(analysis_lines(grouped))
        rate = "FPIR 0.1" if keys[0] == "fpir" else "FAR 0.0?1"
        assert re.search(rf"{result.name} by side at threshold \S+ \({rate} over all\):", lines)
        assert "Max/GeoMean: " in lines
        json.dumps(grouped.to_dict(), allow_nan=False)


def test_the_rate_of_a_grouping_is_one_that_was_measured(results: list) -> None:
    groups = by_parity(results[0].scored)
    (found,) = analysed(results[:1], Grouping(groups, 0.1))
    assert found.to_dict()["groups"]["far"] == 0.1
    with pytest.raises(ValueError, match=r"'listed' has no threshold at FAR 0.2 for its groups; it has: 0.1"):
        analysed(results[:1], Grouping(groups, 0.2))


def test_pairs_have_an_error_versus_discard_curve(results: list) -> None:
    for result in results[:2]:
        erc = result.to_dict()["erc"]
        assert 0 < erc["partial_auc_best"] <= erc["partial_auc"] and len(result.curves()["erc"]["fnmr"]) == 96
        assert result.curves()["erc"]["fnmr"][0] == pytest.approx(erc["fnmr"])


def test_a_protocol_without_scores_of_images_is_refused() -> None:
    figures = Figures("ijb", "ijb", "x", {}, {})
    with pytest.raises(ValueError, match=r"'ijb' keeps no scores of single images, so groups cannot be told"):
        analysed([figures], Grouping(Attribute("a", "b", {})))
    with pytest.raises(ValueError, match=r"'ijb' keeps no scores of single images, so qualities cannot"):
        analysed([figures], quality=Attribute("a", "b", {}))


def test_groups_that_fit_one_protocol_alone_are_said_of_the_others(results: list) -> None:
    figures = Figures("ijb", "ijb", "x", {}, {})
    grouped, other = analysed([results[0], figures], Grouping(by_parity(results[0].scored)))
    assert "groups" in grouped.to_dict()
    assert [note for note in other.notes() if note.startswith("ijb: 'ijb' keeps no scores of single images")]


@pytest.mark.parametrize("rate", ["0", "1.5", "x", "nan"])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, rate: str) -> None:
    (tmp_path / "a.csv").write_text("person,side\na,b\n")
    with pytest.raises(ValueError, match=rf"far={rate} of '.*' is not a rate above 0 and at most 1"):
        Grouping.parse(f"{tmp_path}/a.csv?far={rate}")
    assert Grouping.parse(f"{tmp_path}/a.csv?far=0.01").far == 0.01
    assert parse_quality(f"{tmp_path}/a.csv?column=side").column == "side"


def test_the_command_prints_groups_and_the_page_shows_them(
    tiny_run: Path, tmp_path: Path, facescale: Command
) -> None:
    protocols = {"x": "synthetic:pairs=600,folds=2", "y": f"all_pairs:{SPEC}"}
    rows = ["image,side,sharpness"]
    for spec in protocols.values():
        scored = open_protocol(spec, 56).measure(lambda x: x.flatten(1).float()).scored
        side = by_parity(scored)
        rows += [f'"{scored.key(int(i))}",{side.of(scored.key(int(i)))},{i}' for i in scored.used]
    rows.pop()
    (tmp_path / "a.csv").write_text("\n".join(rows))
    words = ["evaluate", str(tiny_run), *[f"--on={name}={spec}" for name, spec in protocols.items()]]
    words += ["--groups", f"{tmp_path}/a.csv?column=side", "--quality", f"{tmp_path}/a.csv?column=sharpness"]
    code, out, err = facescale(*words, "--device", "cpu", "--no-pictures")
    assert code == 0, err
    assert "x by side at threshold" in out and re.search(r"Max/GeoMean: FMR \S+, FNMR", out)
    assert "y: 1 of 240 images have no side in" in out and "y at the threshold of x for FAR 0.1" in out
    text = html.unescape((tiny_run / "report.html").read_text())
    for word in ("FMR of every two groups by side", "Max/GeoMean", "Thresholds of other sets", "sharpness"):
        assert word in text
    results = json.loads((tiny_run / "results.json").read_text())["results"]
    assert all({"groups", "erc", "transfer"} <= one.keys() for one in results[:2])

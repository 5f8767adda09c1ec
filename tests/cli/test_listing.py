import pytest

from facescale.cli.listing import KINDS, SYNONYMS, as_text, option_rows
from facescale.registry import options_of


@pytest.mark.parametrize("kind", ["backbones", "heads", "margins"])
def test_every_option_has_a_type_and_a_meaning_of_its_own(kind: str) -> None:
    for component, factory in KINDS[kind].factories.items():
        for option in options_of(factory).values():
            where = f"{component}.{option.name}: {option}"
            assert option.type_text not in ("", "Any"), where
            assert len(option.meaning) > 3 and not option.meaning.startswith("see "), where


def test_other_words_for_a_kind_are_understood(facescale) -> None:  # type: ignore[no-untyped-def]
    for word, kind in SYNONYMS.items():
        assert word not in KINDS and kind in KINDS
    assert facescale("list", "losses") == facescale("list", "margins")


def test_any_network_of_timm_is_among_the_backbones() -> None:
    assert {"pretrained", "input_size", "crop"} <= options_of(
        KINDS["backbones"].factories["timm:NAME"]
    ).keys()


def test_an_option_that_all_have_alike_comes_once() -> None:
    (crop,) = [row for row in option_rows() if row["key"] == "backbone.crop"]
    assert crop["type"] == "Sequence[int] | None" and crop["default"] == ""
    assert crop["meaning"].startswith("all: the square as [left, top, side]")


def test_options_say_whose_they_are() -> None:
    rows = option_rows()
    (filtered,) = [row for row in rows if row["key"] == "head.margin.interclass_filter"][:1]
    assert filtered["meaning"].startswith("all but unitsface: cosine above which")
    (rate,) = [row for row in rows if row["key"] == "head.rate"]
    assert rate["meaning"].startswith("partial_fc: ")


def test_options_of_a_head_default_to_what_the_run_offers() -> None:
    defaults = {(row["key"], row["meaning"].split(":")[0]): row["default"] for row in option_rows()}
    assert defaults["head.momentum", "full, partial_fc"] == "optim.momentum"
    assert defaults["head.margin.m", "cosface"] == "0.4"


def test_tables_of_components_and_of_their_options_are_printed() -> None:
    components, options = as_text(KINDS["heads"]).split("\n\n")
    assert components.splitlines()[0].split() == ["name", "what"]
    assert options.splitlines()[0].split() == ["option", "type", "default", "of", "meaning"]
    assert "\n\n" not in as_text(KINDS["evaluators"])  # which have no options

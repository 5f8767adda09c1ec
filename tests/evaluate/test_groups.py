"""Errors by group, against counts written out by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from facescale.evaluate.attributes import Attribute
from facescale.evaluate.group_ratio import MaxOverGeoMean, max_over_geomean
from facescale.evaluate.groups import (
    MOST_GROUPS,
    GroupRate,
    groups_of,
    pair_rates,
    search_rates,
    strictest_rate,
)
from facescale.evaluate.intervals import RateInterval, mean_interval, wilson
from facescale.evaluate.scored import ImagePairs, ScoredImages, ScoredSearch

PEOPLE, EACH = 60, 3


def faces(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of 60 people; those of the second half look more alike."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(PEOPLE), EACH)
    centre = rng.normal(size=(PEOPLE, 8))
    centre[PEOPLE // 2 :, 0] += 2.5
    x = centre[person] + 0.9 * rng.normal(size=(len(person), 8))
    return x / np.linalg.norm(x, axis=1, keepdims=True), person


def key_of(person: np.ndarray) -> Callable[[int], str]:
    return lambda index: f"p{person[index]}/{index}.jpg"


def scored(is_every_pair: bool) -> ScoredImages:
    x, person = faces()
    a, b = np.triu_indices(len(person), 1)
    scores, same = np.einsum("nd,nd->n", x[a], x[b]), person[a] == person[b]
    kinds = [ImagePairs(scores[kind], a[kind], b[kind]) for kind in (same, ~same)]
    if is_every_pair:  # only the highest are kept
        kept = kinds[1].scores > 0.5
        kinds[1] = ImagePairs(*(column[kept] for column in vars(kinds[1]).values()))
    return ScoredImages(key_of(person), person, np.ones(len(person)), *kinds, is_every_pair)


def halves(per_image: bool = False) -> Attribute:
    names = {f"p{person}": "few" if person < PEOPLE // 2 else "many" for person in range(PEOPLE)}
    if per_image:  # the last image of each person is of the other group
        names |= {
            f"p{i // EACH}/{i}.jpg": "many" if i // EACH < PEOPLE // 2 else "few"
            for i in range(EACH - 1, PEOPLE * EACH, EACH)
        }
    return Attribute("attributes.csv", "kind", names)


@pytest.mark.parametrize("is_every_pair", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
def test_rates_are_those_of_the_pairs_counted_one_by_one(is_every_pair: bool, per_image: bool) -> None:
    attribute, threshold = halves(per_image), 0.62
    found = pair_rates(scored(is_every_pair), attribute, 0.02, threshold)
    pairs = scored(False)
    group = np.array([attribute.of(pairs.key(i)) for i in range(PEOPLE * EACH)])
    for rate in found.false_accepts:
        first, second = group[pairs.impostor.first], group[pairs.impostor.second]
        here = ((first == rate.first) & (second == rate.second)) | (
            (first == rate.second) & (second == rate.first)
        )
        accepted = pairs.impostor.scores[here] >= threshold
        people = [pairs.person_N[side[here]] for side in (pairs.impostor.first, pairs.impostor.second)]
        expected = mean_interval(accepted, *people)
        assert rate.count == here.sum()
        assert rate.found and vars(rate.found) == pytest.approx(vars(expected))
    for rate in found.false_rejects:
        here = (group[pairs.genuine.first] == rate.first) & (group[pairs.genuine.second] == rate.first)
        assert (rate.count, rate.rate) == (here.sum(), np.mean(pairs.genuine.scores[here] < threshold))
        assert rate.found and rate.found.low <= rate.found.rate <= rate.found.high
    assert [(rate.first, rate.second) for rate in found.false_accepts] == [
        ("few", "few"),
        ("few", "many"),
        ("many", "many"),
    ]
    mixed = ["120 genuine pairs are of two groups and are in no FNMR"] if per_image else []
    assert list(found.notes) == mixed


def test_the_group_that_looks_alike_is_accepted_more() -> None:
    found = pair_rates(scored(False), halves(), 0.02, 0.62)
    few, many = found.within
    assert few.found and many.found and few.found.high < many.found.low
    tree = found.to_dict()
    rates = np.array([few.rate, many.rate])
    assert tree["max_over_geomean_fmr"] == pytest.approx(rates.max() / rates.prod() ** 0.5)
    assert tree["images"] == {"few": 90, "many": 90} and tree["max_over_geomean_fnmr"] >= 1


def test_images_without_a_group_are_counted_and_named() -> None:
    attribute = halves()
    names = {name: value for name, value in attribute.values.items() if name not in ("p0", "p7")}
    found = pair_rates(scored(False), Attribute("a.csv", "kind", names), 0.02, 0.6)
    assert found.notes == (
        "6 of 180 images have no kind in 'a.csv' and are in no group: "
        "'p0/0.jpg', 'p0/1.jpg', 'p0/2.jpg', ...",
    )
    assert found.images == (84, 90) and found.false_rejects[0].count == 84
    assert [rate.count for rate in found.false_accepts] == [84 * 81 // 2, 84 * 90, 90 * 87 // 2]


def test_a_group_with_too_few_pairs_has_a_reason_in_place_of_a_figure() -> None:
    names = {**halves().values, "p0": "one", "p1": "one"}
    found = pair_rates(scored(False), Attribute("a.csv", "kind", names), 0.02, 0.6)
    cells = {(rate.first, rate.second): rate for rate in found.false_accepts}
    assert cells["one", "one"].rate is None
    assert cells["one", "one"].reason == "9 impostor pairs, 500 are needed"
    assert (
        found.false_rejects[2].reason == "6 genuine pairs, 30 are needed" and not cells["few", "one"].reason
    )
    assert found.to_dict()["max_over_geomean_fnmr"] is not None
    never = pair_rates(scored(False), halves(), 0.02, 2.0).to_dict()
    assert never["max_over_geomean_fmr"] is None and never["max_over_geomean_fnmr"] == 1
    assert never["notes"] == ["no Max/GeoMean of FMR: no error in group 'few'"]


def test_max_over_geomean_says_why_there_is_none() -> None:
    assert max_over_geomean(rates(0.01, 0.04)).value == pytest.approx(2)
    assert max_over_geomean(rates(0.1, 0.1, None)).value == pytest.approx(1)
    assert max_over_geomean(rates(0.1, 0.0)) == MaxOverGeoMean(reason="no error in group 'g1'")
    assert max_over_geomean(rates(0.1, None)).reason == "1 group has a figure, two are needed"


def rates(*values: float | None, pairs: float = 1000) -> list[GroupRate]:
    found = [v if v is None else RateInterval(v, *wilson(v, pairs), pairs) for v in values]
    return [GroupRate(f"g{i}", f"g{i}", 9, one) for i, one in enumerate(found)]


def test_the_interval_of_max_over_geomean_holds_what_the_rates_allow_and_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    few = max_over_geomean(rates(0.01, 0.02, 0.05)).interval
    box = np.array([one.found.at(1 - 0.05 / 3) for one in rates(0.01, 0.02, 0.05) if one.found])
    drawn = np.log(random.uniform(*box.T, size=(20_000, 3)))
    ratios = np.exp(drawn.max(axis=1) - drawn.mean(axis=1))
    assert few is not None and few[0] <= ratios.min() <= few[0] * 1.1
    assert few[1] >= ratios.max() >= few[1] * 0.9
    assert max_over_geomean(rates(0.02, 0.021, 0.019)).interval[0] == 1  # type: ignore[index]
    truth = np.array([0.02, 0.02, 0.06, 0.04])
    ratio = truth.max() / np.exp(np.log(truth).mean())
    covered = []
    for _ in range(300):
        ends = max_over_geomean(rates(*np.maximum(random.binomial(1000, truth), 1) / 1000)).interval
        assert ends is not None
        covered.append(ends[0] <= ratio <= ends[1])
    assert np.mean(covered) >= 0.95


def test_groups_that_do_not_fit_the_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"none of the 180 images has a group in 'a.csv'; .*'p0/0.jpg'"):
        groups_of(Attribute("a.csv", "kind", {"q0": "x"}), scored(False))
    one = Attribute("a.csv", "kind", {f"p{i}": "x" for i in range(PEOPLE)})
    with pytest.raises(ValueError, match=r"column 'kind' of 'a.csv' makes 1 groups of the images; choose"):
        groups_of(one, scored(False))
    many = Attribute("a.csv", "kind", {f"p{i}": str(i) for i in range(PEOPLE)})
    with pytest.raises(ValueError, match=rf"makes 60 groups .*a column with 2 to {MOST_GROUPS} values"):
        groups_of(many, scored(False))


def test_the_rate_is_the_strictest_that_half_of_the_groups_support() -> None:
    attribute = halves()  # 3,915 impostor pairs within each group
    assert strictest_rate(scored(False), attribute, [0.1, 0.01, 0.001]) == 0.01
    assert strictest_rate(scored(True), attribute, [0.1, 0.01, 0.001]) == 0.01
    assert strictest_rate(scored(False), attribute, [0.001]) == 0.001
    with pytest.raises(ValueError, match="too few impostor pairs for any of the false-accept rates"):
        strictest_rate(scored(False), attribute, [])


def test_a_search_has_rates_of_probes() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), 20)
    mated, strangers = np.flatnonzero(person % 2 == 0), np.flatnonzero(person % 2 == 1)
    mate, other = rng.random(len(mated)), rng.random(len(strangers))
    search = ScoredSearch(key_of(person), person, np.ones(len(person)), mated, mate, strangers, other)
    found = search_rates(search, halves(), 0.1, 0.7)
    for number, (accept, reject) in enumerate(zip(found.false_accepts, found.false_rejects, strict=True)):
        in_group = (person < PEOPLE // 2) == (number == 0)
        assert accept.rate == pytest.approx(np.mean(other[in_group[strangers]] > 0.7))
        assert reject.rate == pytest.approx(np.mean(mate[in_group[mated]] <= 0.7))
    tree = found.to_dict()
    assert {"fpir", "fnir", "max_over_geomean_fpir", "max_over_geomean_fnir"} < tree.keys()
    few = search_rates(search, halves(), 1e-3, 0.7)
    assert few.false_accepts[0].reason == "300 strangers, 10,000 are needed"

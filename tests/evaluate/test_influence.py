"""What each person adds to TAR, against the spread of the difference of two models over many sets."""

from dataclasses import replace

import numpy as np

from facescale.data import open_reader
from facescale.evaluate.compare import _differences
from facescale.evaluate.embedding import Embedded
from facescale.evaluate.figures import Figures
from facescale.evaluate.influence import influence_difference, kept_influences
from facescale.evaluate.protocols.data_set import EveryPair
from facescale.evaluate.records import MeasuredModel, Record

PEOPLE, EACH, FAR = 60, 4, 0.01
READER = open_reader(f"synthetic:ids={PEOPLE},images={EACH},size=32")


def model_of(shared: np.ndarray, noise: float, random: np.random.Generator) -> Figures:
    """Figures of a model that sees the same faces with noise of its own."""
    x = shared + noise * random.normal(size=shared.shape)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    embedded = Embedded(unit, np.ones(len(x)), np.ones(len(x)))
    return EveryPair("all", "faces", READER)._measured(embedded, np.arange(len(x)))


def faces(random: np.random.Generator) -> np.ndarray:
    people = random.normal(size=(PEOPLE, 8))
    return people[READER.ids] + 0.5 * random.normal(size=(len(READER), 8))


def moved(figures: Figures) -> np.ndarray:
    return np.array(figures.drawn["people"]["moved"][f"tar@far={FAR:g}"])


def test_the_spread_of_a_difference_is_what_people_add_to_it() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(60):
        shared = faces(random)
        one, two = (model_of(shared, 0.3, random) for _ in range(2))
        tar = [of.values[f"tar@far={FAR:g}"] for of in (one, two)]
        found.append(influence_difference(tar[0], tar[1], moved(one), moved(two)))
    spread = np.mean([(one.high - one.low) / 2 / 1.96 for one in found])
    assert 0.75 < spread / np.std([one.value for one in found]) < 1.5
    assert np.mean([one.is_significant for one in found]) <= 0.15  # 5 % of 60, with its own spread


def record(figures: Figures) -> Record:
    return Record.of(figures, MeasuredModel("step_1", "f"))


def test_runs_are_compared_on_all_pairs_of_the_same_people_only() -> None:
    random = np.random.default_rng(1)
    shared = faces(random)
    good, bad = record(model_of(shared, 0.05, random)), record(model_of(shared, 2.0, random))
    found, notes = _differences(["a", "b"], {"a": [bad], "b": [good]})
    difference = found["all", f"tar@far={FAR:g}", "a", "b"]
    assert difference.is_significant and difference.low > 0 and not notes
    same, _ = _differences(["a", "b"], {"a": [good], "b": [good]})
    assert same["all", f"tar@far={FAR:g}", "a", "b"].p == 1
    people = {**good.curves["people"], "digest": "other"}
    other = replace(good, curves={**good.curves, "people": people})
    found, notes = _differences(["a", "b"], {"a": [bad], "b": [other]})
    assert not found and notes == ["all: a and b were measured on different pairs"]


def test_a_result_of_very_many_people_keeps_none() -> None:
    assert kept_influences({"tar@far=0.1": np.zeros(50_001)}, np.zeros(3)) == {}
    assert kept_influences({}, np.zeros(3)) == {}

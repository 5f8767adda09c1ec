"""Figures that can choose the best checkpoint, and the one that does so unless told."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from facescale.config.mistakes import Mistake
from facescale.config.schema import EvalConfig
from facescale.registry import nearest

LOWER_IS_BETTER = ("eer",)
_HIGHER = re.compile(r"accuracy|auc|rank\d+|(?:tar@far|tpir@fpir|recall@pooled_fpir)=(?P<rate>.+)")
_FIGURES = "accuracy, auc, eer, rank1, tar@far=0.001 or tpir@fpir=0.01"


def chooses(name: str) -> bool:
    """Whether more (or less, if in ``LOWER_IS_BETTER``) of the figure NAME/METRIC is better."""
    metric = name.rpartition("/")[2]
    return metric in LOWER_IS_BETTER or _HIGHER.fullmatch(metric) is not None


def headlines(figures: Iterable[str]) -> list[str]:
    """Of figures NAME/METRIC, the one of each protocol that says most in a line."""
    able = [name for name in figures if chooses(name)]
    names = dict.fromkeys(name.rpartition("/")[0] for name in able)
    found = (first_choice(name for name in able if name.rpartition("/")[0] == one) for one in names)
    return [name for name in found if name]


def first_choice(figures: Iterable[str]) -> str | None:
    """Of figures NAME/METRIC, the one that chooses: the first accuracy, else the first that can."""
    able = [name for name in figures if chooses(name)]
    return next((name for name in able if name.endswith("/accuracy")), next(iter(able), None))


def is_better(name: str, value: float, than: float) -> bool:
    """Whether a value of the figure NAME/METRIC is as good as another one, or better."""
    return value <= than if name.rpartition("/")[2] in LOWER_IS_BETTER else value >= than


def criterion_mistakes(tree: Mapping[str, Any]) -> Iterator[Mistake]:
    """What is wrong with ``checkpoint.best_by``, before a training finds out at its first evaluation.

    Args:
        tree: the config as tables of values.
    """
    key = ("checkpoint", "best_by")
    best_by, sets = (_value(tree, *place) for place in (key, ("eval", "sets")))
    if not isinstance(best_by, str) or not best_by:
        return
    names = list(sets if isinstance(sets, Mapping) else EvalConfig().sets)
    name, _, metric = best_by.rpartition("/")
    if name not in names:
        having = f"; eval.sets has: {', '.join(names)}" if names else "; eval.sets is empty"
        yield Mistake(
            (key,), f"it is NAME/METRIC of a protocol in eval.sets{nearest(name, names)}{having}", best_by
        )
    elif not chooses(best_by):
        yield Mistake((key,), f"'{metric}' does not say which checkpoint is better; take {_FIGURES}", best_by)
    elif (rate := _rate(metric)) and _plain(rate) != rate:
        figure = f"{metric.removesuffix(rate)}{_plain(rate)}"
        yield Mistake((key,), f"rates are written as in results: {figure}", best_by)


def _rate(metric: str) -> str:
    found = _HIGHER.fullmatch(metric)
    return (found["rate"] or "") if found else ""


def _value(tree: Mapping[str, Any], section: str, key: str) -> Any:
    table = tree.get(section)
    return table.get(key) if isinstance(table, Mapping) else None


def _plain(rate: str) -> str:
    try:
        return f"{float(rate):g}"
    except ValueError:
        return "0.001"

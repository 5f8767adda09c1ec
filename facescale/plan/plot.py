"""Plot the time and memory of heads over the number of identities."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facescale.plan.bench import HeadFigures


def pyplot() -> Any:
    """The pyplot of matplotlib, set to draw into files.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError("plots need matplotlib; install facescale[plot]") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


@contextmanager
def over_identities(path: Path, left: str, right: str) -> Iterator[tuple[Any, Any]]:
    """Two plots over the number of identities, saved at the end; the names of their vertical axes are given.

    Raises:
        ValueError: matplotlib is not installed.
    """
    plots = pyplot()
    figure, axes = plots.subplots(1, 2, figsize=(11, 4.5))
    yield tuple(axes)
    for one, name in zip(axes, (left, right), strict=True):
        one.set(xscale="log", yscale="log", xlabel="identities", ylabel=name)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plots.close(figure)


def plot_heads(figures: Sequence[HeadFigures], path: Path) -> None:
    """Draw time and memory over the number of identities.

    Raises:
        ValueError: matplotlib is not installed.
    """
    names = "ms a step (head only)", "GB of the head (planned if not run)"
    with over_identities(path, *names) as (left, right):
        for head in dict.fromkeys(one.head for one in figures):
            mine = [one for one in figures if one.head == head]
            timed = [one for one in mine if one.step_ms is not None]
            left.plot([one.num_ids for one in timed], [one.step_ms for one in timed], "o-", label=head)
            memory = [(one.planned_bytes if one.peak_bytes is None else one.peak_bytes) / 1e9 for one in mine]
            right.plot([one.num_ids for one in mine], memory, "o-", label=head)
        right.legend(fontsize="small")

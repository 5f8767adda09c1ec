"""Plot the time and memory of heads over the number of identities."""

from collections.abc import Sequence
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


def plot_heads(figures: Sequence[HeadFigures], path: Path) -> None:
    """Draw time and memory over the number of identities.

    Raises:
        ValueError: matplotlib is not installed.
    """
    plots = pyplot()
    figure, (left, right) = plots.subplots(1, 2, figsize=(11, 4.5))
    for head in dict.fromkeys(one.head for one in figures):
        mine = [one for one in figures if one.head == head]
        timed = [one for one in mine if one.step_ms is not None]
        left.plot([one.num_ids for one in timed], [one.step_ms for one in timed], "o-", label=head)
        memory = [(one.planned_bytes if one.peak_bytes is None else one.peak_bytes) / 1e9 for one in mine]
        right.plot([one.num_ids for one in mine], memory, "o-", label=head)
    left.set(xscale="log", yscale="log", xlabel="identities", ylabel="ms a step (head only)")
    right.set(xscale="log", yscale="log", xlabel="identities", ylabel="GB of the head (planned if not run)")
    right.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plots.close(figure)

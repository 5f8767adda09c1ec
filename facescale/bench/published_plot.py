"""Plot of the published table beside figures of this machine."""

from collections.abc import Sequence
from pathlib import Path

from facescale.bench.here import Here
from facescale.bench.published import COLUMNS, PUBLISHED
from facescale.plan.plot import pyplot


def plot_published(figures: Sequence[Here], path: Path) -> None:
    """Speed and memory over the number of identities; hollow points are planned.

    Raises:
        ValueError: matplotlib is not installed.
    """
    plots = pyplot()
    figure, (left, right) = plots.subplots(1, 2, figsize=(11, 4.5))
    for number, name in enumerate(COLUMNS):
        speeds = [(one.num_ids, one.speed[number]) for one in PUBLISHED if one.speed[number]]
        sizes = [(one.num_ids, one.megabytes[number]) for one in PUBLISHED if one.megabytes[number]]
        style = {"linestyle": ("-", "--", ":")[number], "color": "0.6", "label": f"published {name}, 8 V100"}
        left.plot(*zip(*speeds, strict=True), **style)
        right.plot([count for count, _ in sizes], [size / 1e3 for _, size in sizes if size], **style)
    for way in dict.fromkeys(one.way for one in figures):
        mine = [one for one in figures if one.way == way]
        timed = [one for one in mine if one.images_per_s is not None]
        left.plot([one.num_ids for one in timed], [one.images_per_s for one in timed], "o-", label=way)
        (line,) = right.plot([one.num_ids for one in mine], [one.num_bytes / 1e9 for one in mine], label=way)
        for one in mine:
            face = "none" if one.images_per_s is None else line.get_color()
            right.plot(one.num_ids, one.num_bytes / 1e9, "o", color=line.get_color(), markerfacecolor=face)
    left.set(xscale="log", yscale="log", xlabel="identities", ylabel="images/s")
    right.set(xscale="log", yscale="log", xlabel="identities", ylabel="GB on a device (hollow: planned)")
    right.legend(fontsize="x-small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plots.close(figure)

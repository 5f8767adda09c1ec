"""Plot of the published table beside figures of this machine."""

from collections.abc import Sequence
from pathlib import Path

from facescale.bench.here import Here
from facescale.bench.published import COLUMNS, PUBLISHED
from facescale.plan.plot import over_identities


def plot_published(figures: Sequence[Here], path: Path) -> None:
    """Speed and memory over the number of identities; hollow points are planned.

    Raises:
        ValueError: matplotlib is not installed.
    """
    with over_identities(path, "images/s", "GB on a device (hollow: planned)") as (left, right):
        for number, name in enumerate(COLUMNS):
            speeds = [(one.num_ids, one.speed[number]) for one in PUBLISHED if one.speed[number]]
            memory = [(one.num_ids, one.megabytes[number]) for one in PUBLISHED if one.megabytes[number]]
            style = {
                "linestyle": ("-", "--", ":")[number],
                "color": "0.6",
                "label": f"published {name}, 8 V100",
            }
            left.plot(*zip(*speeds, strict=True), **style)
            right.plot([count for count, _ in memory], [size / 1e3 for _, size in memory if size], **style)
        for way in dict.fromkeys(one.way for one in figures):
            mine = [one for one in figures if one.way == way]
            timed = [one for one in mine if one.images_per_s is not None]
            left.plot([one.num_ids for one in timed], [one.images_per_s for one in timed], "o-", label=way)
            (line,) = right.plot(
                [one.num_ids for one in mine], [one.num_bytes / 1e9 for one in mine], label=way
            )
            for one in mine:
                face = "none" if one.images_per_s is None else line.get_color()
                right.plot(
                    one.num_ids, one.num_bytes / 1e9, "o", color=line.get_color(), markerfacecolor=face
                )
        right.legend(fontsize="x-small")

"""Line charts as inline SVG; colours come from the page's style, so they follow its theme."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facescale.arrays import FloatArray
from facescale.evaluate.report.markup import Element, el
from facescale.evaluate.report.shapes import dash, series, shape, swatch
from facescale.evaluate.report.tables import table

# All lengths are in units of the view box; a chart is shown about this wide on a screen, narrower on a phone.
WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 68, 14, 14, 44
MAX_POINTS = 400  # of a line: more than there are pixels to show them
MAX_READ = 120  # points of a line that can be read under the pointer
MAX_ROWS = 12  # points of a line in the table of values
NUM_SHAPES = 6  # of a line


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what it shows, with its unit.
        low: value at its start.
        high: value at its end.
        ticks: values that are marked.
        text: how a tick is written.
        log: equal steps are equal ratios.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    text: Callable[[float], str]
    log: bool = False

    def share(self, value: FloatArray | float) -> FloatArray:
        """Position along the axis, 0 at ``low`` and 1 at ``high``."""
        low, high = (math.log10(end) if self.log else end for end in (self.low, self.high))
        scaled = np.log10(value) if self.log else np.asarray(value, dtype=np.float64)
        share: FloatArray = (scaled - low) / (high - low)
        return share


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: shown in the legend.
        x: (n,) positions.
        y: (n,) values.
        style: CSS class of the colour, such as ``series-1``.
        is_area: fill down to the axis.
        solid_from: x from which the line is drawn in full; left of it, it is faint.
    """

    label: str
    x: FloatArray
    y: FloatArray
    style: str
    is_area: bool = False
    solid_from: float = -math.inf


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line at ``x``."""

    x: float
    label: str


def linear_axis(label: str, values: FloatArray, unit: str = "") -> Axis:
    """An axis with round ticks around ``values``."""
    low, high = float(np.min(values)), float(np.max(values))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [step * i for i in range(first, last + 1)]
    return Axis(label, ticks[0], ticks[-1], ticks, lambda value: f"{short(value, step)}{unit}")


def log_axis(label: str, low: float, high: float) -> Axis:
    """A logarithmic axis over whole decades; ``low`` must be above 0."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    every = max(1, round((last - first) / 6))
    ticks = [10.0**power for power in range(first, last + 1) if (last - power) % every == 0]
    return Axis(label, 10.0**first, 10.0**last, ticks, _decade, log=True)


def _decade(value: float) -> str:
    """A power of ten, never wider than its axis has place for."""
    return f"{value:g}" if value >= 1e-2 else f"1e{round(math.log10(value))}"


def short(value: float, step: float) -> str:
    """``value`` with as many digits as ticks ``step`` apart need."""
    if value and step >= 1000:
        return f"{value / 1000:g}k"
    if step < 1e-3:
        return f"{value:g}".replace("e-0", "e-")
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def thin(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """At most 400 points: means of equal stretches."""
    if len(x) <= MAX_POINTS:
        return x, y
    edges = np.linspace(0, len(x), MAX_POINTS + 1).astype(int)[:-1]
    counts = np.diff(np.append(edges, len(x)))
    return np.add.reduceat(x, edges) / counts, np.add.reduceat(y, edges) / counts


def chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, marks: Sequence[Mark] = ()) -> Element:
    """A figure with the lines, a legend where there are several, ``title`` as caption, and its values.

    The script of the page shows the values under the pointer, or under the arrow keys; without it, the shapes
    on a line say theirs, and a table has them all.
    """
    drawing = el(
        "svg",
        el(
            "title",
            f"{title}. Horizontal: {x.label}; vertical: {y.label}. Lines: "
            + ", ".join(line.label for line in lines),
        ),
        _grid(x, y),
        [part for line in lines for part in _line(line, x, y)],
        [part for row, mark in enumerate(marks) for part in _mark(mark, row, x)],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        tabindex=0,
        data_lines=json.dumps([_readable(line, x, y) for line in lines]),
    )
    legend = el(
        "ul",
        [el("li", swatch(line.style), line.label) for line in lines],
        class_="legend",
    )
    values = el("output", aria_live="polite", class_="values")
    read = el("details", el("summary", "Values"), _value_table(title, lines, x, y))
    return el("figure", el("figcaption", title), [legend] if len(lines) > 1 else [], drawing, values, read)


def _readable(line: Line, x: Axis, y: Axis) -> dict[str, Any]:
    """Places and texts of points of a line, for the script of the page."""
    chosen = _spread(len(line.x), MAX_READ)
    px, py = _px(x, line.x), _py(y, line.y)
    points = [
        [round(float(px[i]), 1), round(float(py[i]), 1), f"{line.x[i]:.4g}", f"{line.y[i]:.4g}"]
        for i in chosen
    ]
    return {"label": line.label, "style": line.style, "x": x.label, "points": points}


def _value_table(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> Element:
    """Values of some points of every line."""
    rows = [
        [line.label, f"{line.x[i]:.4g}", f"{line.y[i]:.4g}"]
        for line in lines
        for i in _spread(len(line.x), MAX_ROWS)
    ]
    return table(f"{title}: values", rows, ["Line", x.label, y.label])


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` places, evenly spread, the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})


def _px(x: Axis, value: FloatArray | float) -> FloatArray:
    return LEFT + x.share(value) * (WIDTH - LEFT - RIGHT)


def _py(y: Axis, value: FloatArray | float) -> FloatArray:
    return HEIGHT - BOTTOM - np.clip(y.share(value), 0, 1) * (HEIGHT - TOP - BOTTOM)


def _grid(x: Axis, y: Axis) -> list[Element]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y.ticks:
        at = f"{_py(y, tick):.1f}"
        parts.append(el("line", x1=LEFT, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(el("text", y.text(tick), x=LEFT - 8, y=at, dy="0.35em", class_="tick end"))
    for tick in x.ticks:
        at = f"{_px(x, tick):.1f}"
        parts.append(el("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(el("text", x.text(tick), x=at, y=bottom + 20, class_="tick middle"))
    parts.append(el("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
    parts.append(el("text", x.label, x=(LEFT + right) / 2, y=HEIGHT - 6, class_="label middle"))
    turned = f"rotate(-90 12 {(TOP + bottom) / 2})"
    parts.append(el("text", y.label, x=12, y=(TOP + bottom) / 2, transform=turned, class_="label middle"))
    return parts


def _line(line: Line, x: Axis, y: Axis) -> list[Element]:
    px, py = _px(x, line.x), _py(y, line.y)
    points = [f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True)]
    if line.is_area:
        bottom = HEIGHT - BOTTOM
        area = [f"{px[0]:.1f},{bottom}", *points, f"{px[-1]:.1f},{bottom}"]
        top = int(np.argmin(py))
        return [
            el("polygon", points=" ".join(area), class_=f"area {line.style}"),
            el(
                "polyline",
                points=" ".join(points),
                class_=f"line {line.style}",
                stroke_dasharray=dash(line.style),
            ),
            shape(line.style, px[top], py[top], line.label),
        ]
    split = int(np.searchsorted(line.x, line.solid_from))
    faint, sure = points[: split + 1], points[split:]
    drawn = [
        el(
            "polyline",
            points=" ".join(part),
            class_=f"line {line.style}{extra}",
            stroke_dasharray=dash(line.style),
        )
        for part, extra in ((faint, " faint"), (sure, ""))
        if len(part) > 1
    ]
    return drawn + [
        shape(line.style, px[i], py[i], f"{line.label}: {x.label} {line.x[i]:.4g}, {line.y[i]:.4g}")
        for i in _spread(len(points), NUM_SHAPES)
    ]


def _mark(mark: Mark, row: int, x: Axis) -> list[Element]:
    """The line and its shape; its label has a row of its own, so that those of close marks do not overlap."""
    at = float(_px(x, mark.x))
    is_near_end = at > WIDTH - RIGHT - 80
    label_x, anchor = (at - 8, "tick end") if is_near_end else (at + 8, "tick")
    style, label_y = series(row + 2), TOP + 10 + 16 * row  # the first two are the kinds of pairs
    lines = {"y1": TOP, "y2": HEIGHT - BOTTOM, "stroke_dasharray": dash(style) or "1 2"}
    return [
        el("line", x1=f"{at:.1f}", x2=f"{at:.1f}", class_="mark", **lines),
        shape(style, at, label_y - 4, f"{mark.label}: {mark.x:.3f}"),
        el("text", mark.label, x=f"{label_x:.1f}", y=label_y, class_=anchor),
    ]

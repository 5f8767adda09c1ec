"""Marks of a series: a shape and a dash for each, so that none is told from another by colour alone."""

from facescale.evaluate.report.markup import Element, el

NUM_SERIES = 8  # colours in report.css
DASHES = ("", "7 3", "2 3", "10 3 2 3", "5 2", "12 4", "2 6", "8 3 2 3 2 3")
_RADIUS = 4.0
# Points on a circle of radius 1 around the origin, y downwards.
_POLYGONS = {
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": ((0.0, -1.1), (1.0, 0.8), (-1.0, 0.8)),
    "diamond": ((0.0, -1.2), (1.1, 0.0), (0.0, 1.2), (-1.1, 0.0)),
    "wedge": ((0.0, 1.1), (1.0, -0.8), (-1.0, -0.8)),
    "plus": (
        (-0.35, -1.1),
        (0.35, -1.1),
        (0.35, -0.35),
        (1.1, -0.35),
        (1.1, 0.35),
        (0.35, 0.35),
        (0.35, 1.1),
        (-0.35, 1.1),
        (-0.35, 0.35),
        (-1.1, 0.35),
        (-1.1, -0.35),
        (-0.35, -0.35),
    ),
    "hourglass": ((-0.9, -1.0), (0.9, -1.0), (-0.9, 1.0), (0.9, 1.0)),
    "flag": ((-1.0, -1.1), (1.1, 0.0), (-1.0, 1.1)),
}
SHAPES = ("circle", *_POLYGONS)


def series(number: int) -> str:
    """Class that colours series ``number``."""
    return f"series-{number % NUM_SERIES}"


def number_of(style: str) -> int:
    """Series of a class; the two kinds of pairs are like the first and the second."""
    names = {"genuine": 0, "impostor": 1}
    return names[style] if style in names else int(style.rpartition("-")[2])


def dash(style: str) -> str | None:
    """Dashes of the line of a class; None is solid."""
    return DASHES[number_of(style) % len(DASHES)] or None


def shape(style: str, x: float, y: float, title: str = "") -> Element:
    """The shape of a class around a point; ``title`` is shown by a browser without a script too."""
    kind = SHAPES[number_of(style) % len(SHAPES)]
    about = [el("title", title)] if title else []
    if kind == "circle":
        return el("circle", about, cx=f"{x:.1f}", cy=f"{y:.1f}", r=_RADIUS, class_=f"dot {style}")
    points = " ".join(f"{x + _RADIUS * a:.1f},{y + _RADIUS * b:.1f}" for a, b in _POLYGONS[kind])
    return el("polygon", about, points=points, class_=f"dot {style}")


def swatch(style: str) -> Element:
    """A short line with its shape, for a legend."""
    line = el("line", x1=1, x2=31, y1=7, y2=7, class_=f"line {style}", stroke_dasharray=dash(style))
    return el(
        "svg",
        line,
        shape(style, 16, 7),
        viewBox="0 0 32 14",
        width=32,
        height=14,
        aria_hidden="true",
        class_="swatch",
    )

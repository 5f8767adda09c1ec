"""The first section of a page: what the figures mean in practice, and all of them side by side."""

from collections.abc import Mapping, Sequence

from facescale.evaluate.figures import shown_value
from facescale.evaluate.records import Record
from facescale.evaluate.report.markup import Element, el
from facescale.evaluate.report.tables import caption, percent, table

_ABOUT = (
    "Accuracy: each fold is scored at the threshold that is best on the other folds; mean \u00b1 standard "
    "deviation over folds. EER: equal error rate. TAR @ FAR: share of genuine pairs accepted at a "
    "false-accept rate; \u2013 where the set has too few impostor pairs, or does not measure it."
)


def summary(records: Sequence[Record], notes: Sequence[str]) -> list[Element]:
    """Warnings, sentences for everybody, headline figures, and one row for each protocol."""
    parts = []
    if notes:
        parts.append(el("ul", [el("li", note) for note in notes], class_="notes", aria_label="Notes"))
    sentences = [sentence for record in records if (sentence := in_plain_words(record))]
    if sentences:
        parts.append(el("ul", [el("li", sentence) for sentence in sentences], class_="plain"))
    if records:
        parts += [el("div", _tiles(records), class_="tiles"), _comparison(records), caption(_ABOUT)]
    return parts


def in_plain_words(record: Record) -> str:
    """What the strictest threshold that the protocol supports means to somebody who uses it."""
    rates = by_rate(record.figures, "tar@far=")
    thresholds = by_rate(record.figures, "threshold@far=")
    usable = [far for far in sorted(rates) if far in thresholds]
    if not usable:
        return ""
    far = usable[0]
    return (
        f"{record.name}: call two faces the same person if their score is {thresholds[far]:.2f} or higher. "
        f"Then 1 in {round(1 / far):,} pairs of strangers passes, and {found_of_100(rates[far])} of 100 "
        "genuine pairs are found."
    )


def found_of_100(share: float) -> str:
    """A share as a count of 100; with decimals near 0 and 100, where rounding would hide the errors."""
    count = 100 * share
    return f"{count:.0f}" if 1 <= count < 99 or count in (0, 100) else f"{count:.2f}"


def by_rate(figures: Mapping[str, float], prefix: str) -> dict[float, float]:
    """Figures such as ``tar@far=0.01`` by their rate."""
    return {
        float(name.removeprefix(prefix)): value for name, value in figures.items() if name.startswith(prefix)
    }


def measurements(records: Sequence[Record]) -> list[Element]:
    """Everything that was ever measured: one row for each protocol and checkpoint."""
    rows = [
        [
            record.name,
            record.model.checkpoint,
            record.model.fingerprint[:8],
            "\u2013" if record.model.step is None else f"{record.model.step:,}",
            record.time.replace("T", " ")[:16],
            ", ".join(headline(record)),
        ]
        for record in records
    ]
    head = ["Protocol", "Checkpoint", "Weights", "Step", "Measured", "Figures"]
    return [table("All measurements", rows, head)] if rows else []


def headline(record: Record) -> list[str]:
    """The figures that fit in a line: accuracy, else the first three."""
    figures = record.figures
    if "accuracy" in figures:
        kept = ["accuracy", "eer", *[name for name in figures if name.startswith("tar@far=")][-1:]]
    else:
        kept = [name for name in figures if not name.startswith("threshold")][:3]
    return [f"{name} {shown_value(name, figures[name])}" for name in kept]


def _tiles(records: Sequence[Record]) -> list[Element]:
    """The headline figures: one of each protocol; for a single one, more."""
    tiles = []
    for record in records:
        accuracy = record.result.get("accuracy")
        if accuracy:
            about = f"accuracy, \u00b1 {100 * accuracy['std']:.2f} over {len(accuracy['folds'])} folds"
            tiles.append((record.name, percent(accuracy["mean"]), about))
        else:
            name = next((key for key in record.figures if not key.startswith("threshold")), None)
            if name:
                value = shown_value(name, record.figures[name]).replace("%", " %")
                tiles.append((record.name, value, name.replace("tar@far=", "TAR @ FAR ")))
    if len(records) == 1:
        tiles += _more_tiles(records[0])
    return [
        el(
            "div",
            el("p", name, class_="tile-name"),
            el("p", value, class_="tile-value"),
            el("p", about),
            class_="tile",
        )
        for name, value, about in tiles
    ]


def _more_tiles(record: Record) -> list[tuple[str, str, str]]:
    tiles = []
    if "eer" in record.figures:
        tiles.append(("EER", percent(record.figures["eer"]), "false accepts = false rejects"))
    for point in [one for one in record.result.get("operating_points", ()) if one["supported"]][-1:]:
        about = f"95 % interval {100 * point['tar_low']:.2f} to {100 * point['tar_high']:.2f}"
        tiles.append((f"TAR @ FAR {point['far']:g}", percent(point["tar"]), about))
    return tiles


def _comparison(records: Sequence[Record]) -> Element:
    """One row for each protocol, with the checkpoint that it was measured on."""
    fars = sorted({far for one in records for far in by_rate(one.figures, "tar@far=")}, reverse=True)
    rows = []
    for record in records:
        figures, accuracy = record.figures, record.result.get("accuracy")
        tar = by_rate(figures, "tar@far=")
        rows.append(
            [
                record.name,
                record.model.checkpoint,
                *(_count(record, key) for key in ("genuine_pairs", "impostor_pairs")),
                f"{percent(accuracy['mean'])} \u00b1 {100 * accuracy['std']:.2f}" if accuracy else "\u2013",
                f"{figures['auc']:.4f}" if "auc" in figures else "\u2013",
                percent(figures.get("eer")),
                *[percent(tar.get(far)) for far in fars],
            ]
        )
    head = ["Protocol", "Checkpoint", "Genuine", "Impostor", "Accuracy", "AUC", "EER"]
    return table("Figures of each protocol", rows, [*head, *[f"TAR @ FAR {far:g}" for far in fars]])


def _count(record: Record, key: str) -> str:
    count = record.result.get(key, record.result.get("counts", {}).get(key.replace("_", " ")))
    return "\u2013" if count is None else f"{count:,}"

"""The command ``facescale clean``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facescale.cli.app import DeviceOption, JsonOption, app, show
from facescale.cli.data import DataArgument, EditsOption
from facescale.cli.shards import part_of

if TYPE_CHECKING:
    from facescale.clean.embedded import Progress

_FROM_DATA = "by default from the data"


@app.command()
def clean(
    data: DataArgument,
    model: Annotated[
        Path, typer.Option(help="Run folder, weights or .onnx whose embeddings judge the labels.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for edits.csv, clean.html and findings.csv.")],
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]SPEC",
            help="Test set whose people must not be in DATA: as evaluate --on, or a data set; repeatable.",
        ),
    ] = None,
    edits: EditsOption = None,
    precision: Annotated[
        float, typer.Option(help="Expected fraction of real errors among what is proposed, 0 to 1.")
    ] = 0.75,
    label: Annotated[float | None, typer.Option(help=f"Lowest score of a wrong label; {_FROM_DATA}.")] = None,
    split: Annotated[
        float | None, typer.Option(help=f"Lowest score of a split identity; {_FROM_DATA}.")
    ] = None,
    merged: Annotated[
        float | None, typer.Option(help=f"Lowest score of a merged identity; {_FROM_DATA}.")
    ] = None,
    near: Annotated[
        float | None, typer.Option(help=f"Cosine from which pixels are compared; {_FROM_DATA}.")
    ] = None,
    same: Annotated[float, typer.Option(help="Agreement of the pixels of a near-duplicate, 0 to 1.")] = 0.85,
    shared: Annotated[
        float | None, typer.Option(help=f"Lowest score of a person of a test set; {_FROM_DATA}.")
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Show faces in the report.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 128,
    workers: Annotated[int, typer.Option(min=1, help="Decoding threads.")] = 2,
    device: DeviceOption = "auto",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only embed part I of N, as a job of an array; the command without it then finds the parts.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find wrong labels, copies and people of test sets.

    Also split and merged identities. Nothing is changed: open clean.html, remove what you reject from
    edits.csv, and train with --set data.edits=OUT/edits.csv. The same command continues after an
    interruption. With --shard, each of n jobs that share OUT embeds its part of the images and proposes
    nothing.
    """
    from facescale.clean.part import embed_shard
    from facescale.clean.run import EDITS, PAGE, TABLE, Options
    from facescale.clean.run import clean as run
    from facescale.data import open_reader

    part = part_of(shard)
    options = Options(
        precision=precision,
        label=label,
        split=split,
        merged=merged,
        near=near,
        same=same,
        shared=shared,
        pictures=pictures,
        batch_size=batch_size,
        workers=workers,
        device=device,
    )
    reader = open_reader(data, edits=edits or [])
    with _bar(not as_json) as progress:
        if part is not None:
            images = embed_shard(reader, model, out, part, against or [], options, progress)
            text = f"shard {part}: {images:,} images embedded; when all are, run the command without --shard"
            return show({"shard": str(part), "images": images}, as_json, text)
        report = run(reader, model, out, against or [], options, progress)
    written = f"{out}: {EDITS} (for data.edits), {PAGE} (with pictures), {TABLE} (all scores)"
    show(report.to_dict(), as_json, "\n".join([*report.lines(), written]))


@contextmanager
def _bar(enabled: bool) -> "Iterator[Progress | None]":
    """A progress bar in a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from facescale.cli.terminal import for_progress

    console = Console(file=for_progress(sys.stderr))
    if not (enabled and console.is_terminal):
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        tasks: dict[str, int] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield told

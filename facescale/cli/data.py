"""Commands about data: inspect, pairs, convert-data."""

from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import JsonOption, app, key_value, show

DataArgument = Annotated[
    str,
    typer.Argument(
        help="Folder with one sub-folder per identity, .rec file, or another format (docs/formats.md)."
    ),
]
EditsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE.csv", help="CSV of images and identities to drop, move or merge (docs/formats.md)."
    ),
]


@app.command()
def pairs(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Protocol to write: .csv, or .bin with the images inside.")],
    num_pairs: Annotated[
        int | None,
        typer.Option(min=2, help="Number of pairs, half of them genuine; 6,000 or what the images allow."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds; no identity is in two folds.")] = 10,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Sample verification pairs from labelled images.

    The file is a protocol for evaluate --on. A .bin holds the images of any data set, also of one that
    prepare made: evaluate it as NAME=FILE.bin. A .csv names the files of a folder of images:
    NAME=FILE.csv?root=DATA.
    """
    from facescale.evaluate.protocols.write import write_protocol

    number = write_protocol(data, out, num_pairs, folds, seed)
    values = {"path": str(out), "pairs": number, "folds": folds, "seed": seed}
    show(values, as_json, f"{number} pairs in {folds} folds: {out}")


@app.command()
def inspect(
    data: DataArgument,
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet to write (.png).")] = None,
    sample: Annotated[int, typer.Option(help="Maximum number of images to read; 0 reads all.")] = 10_000,
    edits: EditsOption = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Also check checksums, index and every record; problems exit with 1."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Summarise a data set; find duplicates and bad images.

    Identities, images per identity, sizes, colours, unreadable images, duplicates.
    """
    from facescale.data import open_reader
    from facescale.prepare.contact_sheet import contact_sheet
    from facescale.prepare.inspect import inspect_data
    from facescale.prepare.verify import verify_data

    reader = open_reader(data, edits=edits or [])
    found = inspect_data(reader, sample=None if verify else sample or None)
    if sheet:
        contact_sheet(reader, sheet)
    problems = verify_data(data) if verify else []
    lines = [*found.lines(), *(f"! {problem}" for problem in problems)]
    if verify:
        problems += [f"{found.num_bad:,} images are unreadable"] if found.num_bad else []
        lines.append("verified: " + (f"{len(problems)} problems" if problems else "nothing is wrong"))
    lines += [f"contact sheet: {sheet}"] if sheet else []
    values = found.to_dict() | ({"problems": problems} if verify else {})
    show(values, as_json, "\n".join(lines))
    if problems:
        raise typer.Exit(1)


@app.command("convert-data")
def convert_data(
    data: DataArgument,
    out: Annotated[Path, typer.Argument(help="Folder to create.")],
    form: Annotated[
        str,
        typer.Option(
            help="recordio, im2rec, folder, list, webface, lmdb, lmdb_jpeg, shards or parquet.",
        ),
    ] = "recordio",
    info: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="To keep with the data, e.g. licence=CC-BY-4.0."),
    ] = None,
    edits: EditsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a data set in another format.

    The encoded images stay as they are; labels.json keeps the names of the identities, dataset.json the
    licence.
    """
    from facescale.data import open_reader
    from facescale.prepare.convert_data import convert_data as write

    done = write(
        open_reader(data, edits=edits or []),
        out,
        form=form,
        info=dict(key_value(text) for text in info or []),
    )
    values = {
        "folder": str(done.folder),
        "images": done.num_images,
        "identities": done.num_ids,
        "bad": done.bad,
    }
    bad = "".join(f"\nleft out {key}: {reason}" for key, reason in done.bad.items())
    show(values, as_json, f"{done.num_images} images of {done.num_ids} identities in {done.folder}{bad}")

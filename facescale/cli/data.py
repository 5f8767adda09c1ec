"""Commands about data: inspect, pairs, convert-data."""

from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import JsonOption, app, show

DataArgument = Annotated[str, typer.Argument(help="Folder of identity folders, .rec file or synthetic:...")]


@app.command()
def pairs(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Protocol to write: .csv, or .bin with the images inside.")],
    num_pairs: Annotated[int, typer.Option(min=2, help="Pairs, half of them genuine.")] = 6000,
    folds: Annotated[int, typer.Option(min=2, help="Folds, no identity in two of them.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw a verification protocol from labelled images; evaluate takes it with --on.

    A .csv names files below DATA: evaluate it as NAME=FILE.csv?root=DATA.
    """
    from facescale.data import open_reader
    from facescale.data.images import ReaderImages
    from facescale.evaluate.protocols.draw import make_pairs
    from facescale.evaluate.protocols.pair_bin import write_bin
    from facescale.evaluate.protocols.pair_lists import write_csv
    from facescale.evaluate.protocols.pairs import Pairs

    writers = {".csv": write_csv, ".bin": write_bin}
    if out.suffix not in writers:
        raise ValueError(f"cannot write pairs to '{out}'; its suffix must be .csv or .bin")
    if out.suffix == ".csv" and not Path(data).is_dir():
        raise ValueError(f"'{data}' is no folder of images, so a CSV could not name them; write a .bin")
    reader = open_reader(data)
    drawn = make_pairs(reader.ids, num_pairs, folds, seed)
    writers[out.suffix](out, Pairs(data, ReaderImages(reader), *drawn))
    values = {"path": str(out), "pairs": num_pairs, "folds": folds, "seed": seed}
    show(values, as_json, f"{num_pairs} pairs in {folds} folds: {out}")


@app.command()
def inspect(
    data: DataArgument,
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet to write (.png).")] = None,
    sample: Annotated[int, typer.Option(help="Images to read at most; 0 reads all.")] = 10_000,
    as_json: JsonOption = False,
) -> None:
    """Say what a data set holds: identities, images, sizes, colours, bad records, repeated images."""
    from facescale.data import open_reader
    from facescale.prepare.contact_sheet import contact_sheet
    from facescale.prepare.inspect import inspect_data

    reader = open_reader(data)
    found = inspect_data(reader, sample=sample or None)
    if sheet:
        contact_sheet(reader, sheet)
    show(found.to_dict(), as_json, "\n".join(found.lines()))


@app.command("convert-data")
def convert_data(
    data: DataArgument,
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    form: Annotated[str, typer.Option(help="recordio, im2rec or folder.")] = "recordio",
    as_json: JsonOption = False,
) -> None:
    """Write a data set in another form; labels.json keeps the names of the identities."""
    from facescale.data import open_reader
    from facescale.prepare.convert_data import convert_data as write

    done = write(open_reader(data), out, form=form)
    values = {
        "folder": str(done.folder),
        "images": done.num_images,
        "identities": done.num_ids,
        "bad": done.bad,
    }
    bad = "".join(f"\nleft out {key}: {reason}" for key, reason in done.bad.items())
    show(values, as_json, f"{done.num_images} images of {done.num_ids} identities in {done.folder}{bad}")

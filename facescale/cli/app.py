"""What all commands share: the application, common options, printing."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from facescale.cli.help import GroupedCommands

app = typer.Typer(
    name="facescale",
    cls=GroupedCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import facescale

        print(f"facescale {facescale.__version__}")
        raise typer.Exit


@app.callback(
    help="Train face recognition on the hardware you have; evaluate, export and use it.\n\nEvery command has "
    "--help. facescale demo runs the full pipeline without a photograph."
)
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override one value of the config; nothing after = removes it.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
IndexOption = Annotated[
    bool | None,
    typer.Option(
        "--index/--no-index",
        help="Search with an index (extra 'index'), made if need be; by default from 100,000 people.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


def show(values: Any, as_json: bool, text: str) -> None:
    """Print ``values`` as JSON or the human ``text``."""
    print(json.dumps(values, indent=1) if as_json else text)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as text in aligned columns; the last column is not padded."""
    lines = [
        [str(value) for value in row.values()] for row in (dict(zip(rows[0], rows[0], strict=True)), *rows)
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    )


def key_value(text: str) -> tuple[str, str]:
    """Key and value of ``--info KEY=VALUE``.

    Raises:
        ValueError: there is no "=".
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--info {text} is not of the form KEY=VALUE, for example licence=CC-BY-4.0")
    return key, value

"""Command that examines machine and config before a training: doctor."""

from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import DeviceOption, JsonOption, SetOption, app, show


@app.command()
def doctor(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(help="TOML file or recipe; defaults if omitted.")] = None,
    run: Annotated[Path, typer.Option(help="Run folder that the training will use.")] = Path("runs/default"),
    settings: SetOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Check machine and config before a training.

    Each line is ok, or says what to fix. Versions, devices, threads, ports, a collective between two
    processes, disk, data, memory, learning rate. Takes about 20 seconds. Exits with 1 if something is to be
    fixed.
    """
    from dataclasses import asdict

    from facescale.doctor import examine
    from facescale.plan.check import read_config

    found = []
    for finding in examine(read_config(config, settings or ()), run, device, context.obj):
        found.append(finding)
        if not as_json:
            print(finding.line, flush=True)
    if as_json:
        show([asdict(one) for one in found], True, "")
    if any(one.fix for one in found):
        raise typer.Exit(1)

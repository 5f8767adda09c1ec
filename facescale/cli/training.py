"""Commands that train: train, demo, config, list."""

import json
from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import DeviceOption, JsonOption, SetOption, app, show, table

_RUN = Path("runs/default")


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="TOML file; without it the embedded default.")] = None,
    run: Annotated[Path, typer.Option(help="Folder, new or to continue.")] = Path("runs/default"),
    settings: SetOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves it to torch.")] = 0,
    resume: Annotated[bool, typer.Option(help="Continue a run that has a checkpoint.")] = True,
    json_lines: Annotated[bool, typer.Option("--json", help="Print metrics as JSON lines.")] = False,
) -> None:
    """Train a model, or continue an interrupted training.

    Ctrl-C and SIGTERM write a checkpoint; the same command continues from it. Several processes:
    torchrun --nproc-per-node N -m -- facescale train ...
    """
    from facescale.plan.check import read_config

    settled = read_config(config, settings or ())
    import torch

    from facescale.cli.progress import Display
    from facescale.distributed.launch import start
    from facescale.train import train as run_training

    if threads:
        torch.set_num_threads(threads)
    with start(device) as dist, Display(dist.is_main, json_lines) as display:
        result = run_training(settled, run, dist, display.line, resume)
        display.finish(result)


@app.command()
def demo(
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    settings: SetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train on drawn faces, evaluate, export: the whole way in a few minutes."""
    from facescale.cli.progress import Display
    from facescale.distributed.launch import start
    from facescale.recipes.demo import demo as run_demo

    with start(device) as dist, Display(dist.is_main) as display:
        result, report, exported = run_demo(run, settings or [], dist, display.line)
        display.finish(result)
        if report and exported:
            for name, value in result.metrics.items():
                if name.endswith("/accuracy"):
                    who = name.removesuffix("/accuracy")
                    print(f"{who}: {value:.2%} accuracy on identities that training never saw")
            print(f"model:  {exported.path} (same embeddings to {exported.max_relative_difference:.0e})")
            print(f"report: {report}")


@app.command()
def config(
    path: Annotated[Path | None, typer.Argument(help="TOML file to check.")] = None,
    settings: SetOption = None,
    explain: Annotated[bool, typer.Option(help="Every key and option: type, default, meaning.")] = False,
    schema: Annotated[bool, typer.Option(help="JSON schema for editors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a config and print it, explain the fields, or print the JSON schema."""
    from facescale import config as configs

    if schema:
        print(json.dumps(configs.schema(), indent=1))
    elif explain:
        from facescale.cli.listing import option_rows

        keys = ("key", "type", "default", "meaning")
        rows = [dict(zip(keys, row, strict=True)) for row in configs.explain()] + option_rows()
        show(rows, as_json, table(rows))
    else:
        from facescale.plan.check import read_config

        settled = read_config(path, settings or ())
        show(
            settled.model_dump(mode="json"),
            as_json,
            settled.to_toml().strip() or "# all values are the defaults",
        )


@app.command("list")
def list_components(
    kind: Annotated[str, typer.Argument(help="backbones, heads, margins, readers or evaluators.")],
    as_json: JsonOption = False,
) -> None:
    """List the components that a config can name, with their options."""
    from facescale import registry
    from facescale.cli.listing import KINDS, as_text, with_options

    found = registry.lookup("kind of component", KINDS, kind)
    print(json.dumps(with_options(found), indent=1) if as_json else as_text(found))


@app.command()
def plan(
    config: Annotated[Path | None, typer.Argument(help="TOML file; without it the embedded default.")] = None,
    settings: SetOption = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that will train.")] = 1,
    device_memory: Annotated[str | None, typer.Option(help="Memory of a device, e.g. 24GB.")] = None,
    calibrate: Annotated[bool, typer.Option(help="Time the network for two seconds.")] = True,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say what a training will need and take, what fits, and which head to choose, before it runs.

    The first row of the table is the head of the config. Bytes are those of one process; on a CPU the device
    is its memory.
    """
    from facescale.distributed import pick_device
    from facescale.plan.advice import advice_for
    from facescale.plan.check import read_config
    from facescale.plan.units import parse_memory

    memory = parse_memory(device_memory) if device_memory else None
    made = advice_for(
        read_config(config, settings or ()), processes, pick_device(device), memory, timed=calibrate
    )
    show(made.to_dict(), as_json, made.text(table))

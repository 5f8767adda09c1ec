"""Commands that train: train, demo, config, list."""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facescale.cli.app import DeviceOption, JsonOption, SetOption, app, show, table
from facescale.cli.processes import ProcessesOption, demo_processes, spread

if TYPE_CHECKING:
    from facescale.plan import Plan

TrackOption = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="TRACKER", help="Show metrics in wandb or mlflow too; may be repeated."),
]


@app.command()
def train(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(help="TOML file or recipe; defaults if omitted.")] = None,
    run: Annotated[Path, typer.Option(help="Run folder, new or to resume.")] = Path("runs/default"),
    settings: SetOption = None,
    device: DeviceOption = "auto",
    processes: ProcessesOption = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: torch's default.")] = 0,
    resume: Annotated[bool, typer.Option(help="Resume from the latest checkpoint of the run.")] = True,
    json_lines: Annotated[bool, typer.Option("--json", help="Print metrics as JSON lines.")] = False,
    to: TrackOption = None,
) -> None:
    """Train a model, or resume a run.

    Ctrl-C and SIGTERM write a checkpoint; the same command resumes from it, and so does --run alone: without
    a config file, that of the run counts. A larger train.duration lengthens a run. Several hosts:
    torchrun --nnodes H --nproc-per-node N ... -m -- facescale train ...
    """
    spread(context, processes)
    import torch

    from facescale.cli.progress import Display
    from facescale.distributed.launch import start
    from facescale.run import RunDir
    from facescale.train import train as run_training
    from facescale.train.open_run import config_for
    from facescale.train.trackers import Tracking

    tracking = Tracking(RunDir(run), to or ())
    settled = config_for(run, config, settings or ())

    if threads:
        torch.set_num_threads(threads)
    limits = settled.distributed
    with (
        start(device, limits.timeout, limits.first_timeout) as dist,
        Display(dist.is_main, json_lines) as display,
        closing(tracking),
    ):

        def shown(line: dict[str, Any], plan: "Plan") -> None:
            display.line(line, plan)
            tracking(line)

        result = run_training(settled, run, dist, shown, resume)
        display.finish(result)


@app.command()
def finetune(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Run folder (with its class centres) or weights.")],
    data: Annotated[str, typer.Argument(help="New images, as data.train of a config names them.")],
    run: Annotated[Path, typer.Option(help="Run folder, new or to resume.")],
    head: Annotated[
        str,
        typer.Option(
            help="extend: the old people stay as classes, without images, too; keep: as extend, and no class "
            "centre moves; replace: only the people of DATA."
        ),
    ] = "extend",
    distil: Annotated[
        float, typer.Option(min=0, help="Weight of staying near the old model's embeddings; 0 is off.")
    ] = 1.0,
    adapters: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="RANK",
            help="Train low-rank adapters of the attention layers alone (LoRA; vision transformers), at the "
            "old learning rate; 8 is usual, 0 trains the whole network.",
        ),
    ] = 0,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Protocol to measure before and after, beside the run's evaluation sets.",
        ),
    ] = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    processes: ProcessesOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a model further on new people.

    Figures before and after show what it gained and what it forgot. The config is that of the run, at a tenth
    of its learning rate, for 10 epochs. New class centres start from the mean embedding of a person's images,
    and batch norms keep their statistics, so that less is forgotten. More options: facescale config --explain
    (finetune.*).
    """
    spread(context, processes)
    from facescale.cli.progress import Display
    from facescale.distributed.launch import start
    from facescale.recipes.finetune import finetune as run_finetuning
    from facescale.recipes.finetune import finetune_config

    settled = finetune_config(model, data, head, distil, check or (), settings or (), adapters)
    with start(device) as dist, Display(dist.is_main and not as_json) as display:
        done = run_finetuning(settled, run, dist, display.line)
        if not dist.is_main:
            return
        figures = {
            name: {"before": value, "after": done.after[name]}
            for name, value in done.before.items()
            if name in done.after
        }
        if as_json:
            print(json.dumps({"run": str(run), "step": done.result.step, "figures": figures}, indent=1))
            return
        display.finish(done.result)
        for name, pair in figures.items():
            if name.endswith(("/accuracy", "/rank1")):
                print(f"{name}: {pair['before']:.2%} before, {pair['after']:.2%} after")


@app.command()
def track(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    to: TrackOption = None,
) -> None:
    """Show a run in Weights & Biases or MLflow.

    The metrics are those of its metrics.jsonl, while it trains or afterwards.
    """
    from facescale.train.trackers import TRACKERS
    from facescale.train.trackers import track as show_run

    if not to:
        raise ValueError(f"no tracker is named; give --to with one of: {', '.join(TRACKERS)}")
    print(f"{show_run(run, to)} lines shown in {', '.join(to)}")


@app.command()
def demo(
    context: typer.Context,
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    settings: SetOption = None,
    device: DeviceOption = "auto",
    processes: Annotated[
        int, typer.Option(min=0, help="Processes on this machine; 0: two on CPU cores, one on a GPU.")
    ] = 0,
) -> None:
    """Train, evaluate and export on synthetic faces.

    It takes a few minutes and needs no photograph.
    """
    from facescale.cli.progress import Display
    from facescale.distributed.launch import start
    from facescale.recipes.demo import demo as run_demo
    from facescale.recipes.demo import demo_config

    demo_config(settings or [])  # a wrong one is told before any process starts
    spread(context, processes or demo_processes(device))

    with start(device) as dist, Display(dist.is_main) as display:
        result, report, exported = run_demo(run, settings or [], dist, display.line)
        display.finish(result)
        if report and exported:
            for name, value in result.metrics.items():
                if name.endswith("/accuracy"):
                    protocol = name.removesuffix("/accuracy")
                    print(f"{protocol}: {value:.2%} accuracy on identities that are not in the training set")
            print(f"model:  {exported.path} (same embeddings to {exported.max_relative_difference:.0e})")
            print(f"report: {report}")


@app.command()
def config(
    path: Annotated[Path | None, typer.Argument(help="TOML file to check.")] = None,
    settings: SetOption = None,
    explain: Annotated[bool, typer.Option(help="Print type, default and meaning of every key.")] = False,
    schema: Annotated[bool, typer.Option(help="Print the JSON schema, for editors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check and print a config, or explain every key."""
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
    kind: Annotated[
        str | None,
        typer.Argument(help="backbones, heads, margins, readers or evaluators; the names of all if omitted."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List backbones, heads, margins, readers and evaluators.

    With one of these kinds, each component and its options.
    """
    from facescale import registry
    from facescale.cli.listing import KINDS, SYNONYMS, as_text, with_options

    if kind is None:
        rows = [{"kind": name, "names": ", ".join(one.factories)} for name, one in KINDS.items()]
        show(rows, as_json, table(rows))
        return
    found = registry.lookup("kind of component", KINDS, SYNONYMS.get(kind, kind))
    print(json.dumps(with_options(found), indent=1) if as_json else as_text(found))


@app.command()
def plan(
    config: Annotated[Path | None, typer.Argument(help="TOML file or recipe; defaults if omitted.")] = None,
    settings: SetOption = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of training processes.")] = 1,
    device_memory: Annotated[str | None, typer.Option(help="Memory per device, e.g. 24GB.")] = None,
    ids: Annotated[int, typer.Option(min=0, help="Identities of data that is not here.")] = 0,
    images: Annotated[int, typer.Option(min=0, help="Images of data that is not here.")] = 0,
    calibrate: Annotated[bool, typer.Option(help="Time the backbone for two seconds.")] = True,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Estimate memory and time of a training; recommend a head.

    Nothing is trained. The first row of the table is the head of the config. Bytes are per process; on a CPU,
    device memory is host memory.
    """
    from facescale.distributed import pick_device
    from facescale.plan.advice import advice_for
    from facescale.plan.check import read_config
    from facescale.plan.plan import Counts
    from facescale.plan.units import parse_memory

    if bool(ids) != bool(images):
        raise ValueError("--ids and --images go together: give both, or none to count the data of the config")
    counts = Counts(ids, images) if ids else None
    memory = parse_memory(device_memory) if device_memory else None
    settled = read_config(config, settings or ())
    made = advice_for(settled, processes, pick_device(device), memory, calibrate, counts)
    show(made.to_dict(), as_json, made.text(table))

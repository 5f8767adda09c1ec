"""Commands that measure on this machine: bench heads, train, loader, evaluate, published."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import DeviceOption, JsonOption, app, show, table

bench = typer.Typer(help="Measure heads, trainings, loading or evaluation here.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command()
def heads(
    heads: Annotated[
        str,
        typer.Option(
            help="Heads with options, comma-separated, such as full,attfc:size=65536,unique=true. dense: "
            "all logits and a gradient of all rows, as a plain program computes softmax."
        ),
    ] = "full,partial_fc,attfc,f2c",
    ids: Annotated[str, typer.Option(help="Numbers of identities, comma-separated.")] = "10k,100k,1M",
    embedding_size: Annotated[int, typer.Option(min=1, help="Embedding dimension.")] = 512,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 128,
    margin: Annotated[str, typer.Option(help="Margin used by all heads.")] = "cosface",
    device: DeviceOption = "auto",
    seconds: Annotated[float, typer.Option(min=0, help="Seconds per measurement, at least 3 steps.")] = 2.0,
    plot: Annotated[Path | None, typer.Option(help="Plot to write (.png, .svg, .pdf).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure time and memory of heads over the number of identities.

    There is no backbone. Each case runs in a fresh process and is printed as soon as it finishes; --json
    prints one object per line. Memory is device memory: as planned, and the measured peak.
    """
    from facescale.plan.bench import bench_heads, parse_variants
    from facescale.plan.plot import plot_heads, pyplot
    from facescale.plan.units import amount, parse_counts

    variants, counts = parse_variants(heads), parse_counts(ids)
    if plot:
        pyplot()  # fail before the measurements if matplotlib is missing
    width = max(len("head"), *(len(str(variant)) for variant in variants))
    if not as_json:
        print(
            f"{'head':{width}}{'identities':>15}{'step ms':>10}{'images/s':>10}{'planned':>10}{'peak':>10}",
            flush=True,
        )
    measured = []
    for one in bench_heads(
        variants,
        counts,
        embedding_size=embedding_size,
        batch_size=batch_size,
        margin=margin,
        device=device,
        seconds=seconds,
    ):
        measured.append(one)
        if as_json:
            print(json.dumps(one.to_dict()), flush=True)
            continue
        start = f"{one.head:{width}}{one.num_ids:>15,}"
        if one.step_ms is None or one.images_per_second is None:
            print(f"{start}{'':20}{amount(one.planned_bytes):>10}  {one.problem}", flush=True)
        else:
            peak = "unknown" if one.peak_bytes is None else amount(one.peak_bytes)
            speed = f"{one.step_ms:>10.2f}{one.images_per_second:>10.0f}"
            print(f"{start}{speed}{amount(one.planned_bytes):>10}{peak:>10}", flush=True)
    if plot:
        plot_heads(measured, plot)
        print(f"plot: {plot}", file=sys.stderr if as_json else sys.stdout)


BackbonesOption = Annotated[str, typer.Option(help="Networks, comma-separated.")]
BatchesOption = Annotated[str, typer.Option(help="Batch sizes, comma-separated.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Timed steps, after a quarter as many untimed ones.")]
RoundsOption = Annotated[
    int, typer.Option(min=1, help="Rounds in which each way is measured once; the median is shown.")
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads; 0: as the machine was set up.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Decoding threads, and processes of the DataLoader.")]
DataOption = Annotated[str, typer.Option(help="Images to read; synthetic ones are packed as JPEGs first.")]
_DRAWN = "synthetic:ids=500,images=4"


@bench.command()
def train(
    backbones: BackbonesOption = "mbf_s,mbf",
    batches: BatchesOption = "64",
    data: DataOption = _DRAWN,
    workers: WorkersOption = 2,
    steps: StepsOption = 8,
    rounds: RoundsOption = 3,
    threads: ThreadsOption = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure whole trainings, against plain PyTorch.

    Data is included; the network is the same. Plain is: Pillow and torch's DataLoader, torch's layers in
    float32, CosFace over a dense matrix, SGD.
    """
    from facescale.bench.run import packed

    names, on = _networks(backbones), _device(device)
    with packed(data) as images:
        _compare("train", names, batches, (images, workers, steps, on, threads), rounds, as_json)


@bench.command()
def loader(
    data: DataOption = _DRAWN,
    batches: BatchesOption = "128",
    workers: WorkersOption = 2,
    steps: StepsOption = 40,
    rounds: RoundsOption = 3,
    as_json: JsonOption = False,
) -> None:
    """Measure data loading, against Pillow with torch's DataLoader.

    "decoder alone" reads and decodes on one thread: what a loader can reach on one core.
    """
    from facescale.bench.run import packed

    with packed(data) as images:
        _compare("loader", [""], batches, (images, workers, steps, "cpu", 1), rounds, as_json)


@bench.command()
def evaluate(
    backbones: BackbonesOption = "mbf_s,mbf",
    batches: BatchesOption = "128",
    steps: StepsOption = 8,
    rounds: RoundsOption = 3,
    threads: ThreadsOption = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure embedding, against torch's layers in float32.

    The images are in memory.
    """
    rest = ("", 0, steps, _device(device), threads)
    _compare("evaluate", _networks(backbones), batches, rest, rounds, as_json)


@bench.command()
def published(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure on this machine, on one process.")
    ] = False,
    ids: Annotated[
        str, typer.Option(help="With --measure: numbers of identities, comma-separated.")
    ] = "125k,250k,500k,1M,1400k,2M,4M,5500k,8M,16M,29M",
    backbone: Annotated[str, typer.Option(help="With --measure: the network.")] = "r50",
    batch_size: Annotated[int, typer.Option(min=1, help="With --measure: images per step.")] = 128,
    device: DeviceOption = "auto",
    seconds: Annotated[float, typer.Option(min=0, help="Seconds per measurement, at least 3 steps.")] = 2.0,
    plot: Annotated[
        Path | None, typer.Option(help="With --measure: plot to write (.png, .svg, .pdf).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print Partial FC's published table beside our planned memory, or figures of this machine.

    Published: images a second and memory of each GPU on 8 V100. Planned: memory of each GPU for the same
    network, batch and precision; nothing is measured, and no GPU is needed.

    With --measure: images a second of a training step (network and head) and memory, on one process here.
    "dense" is what data parallel and model parallel trainings compute on each GPU. What does not fit is
    planned and says so.
    """
    if not measure:
        if plot:
            raise ValueError("--plot needs --measure")
        from facescale.bench.published import rows

        found = list(rows())
        show(found, as_json, table(found))
        return
    from facescale.bench.here import here_row, here_values, measure_here
    from facescale.bench.published_plot import plot_published
    from facescale.plan.plot import pyplot
    from facescale.plan.units import parse_counts

    if plot:
        pyplot()  # fail before the measurements if matplotlib is missing
    measured = []
    for row in measure_here(parse_counts(ids), backbone, batch_size, device, seconds):
        measured.append(row)
        print(f"{row[0].num_ids:,} identities are done", file=sys.stderr, flush=True)
    show([here_values(one) for one in measured], as_json, table([here_row(one) for one in measured]))
    if plot:
        plot_published([one for row in measured for one in row], plot)
        print(f"plot: {plot}", file=sys.stderr if as_json else sys.stdout)


def _device(name: str) -> str:
    from facescale.distributed import pick_device

    return str(pick_device(name))


def _networks(backbones: str) -> list[str]:
    """The names in a list; an unknown one is said before anything is drawn or measured."""
    from facescale.backbones import factory

    names = [name.strip() for name in backbones.split(",")]
    for name in names:
        factory(name)
    return names


def _compare(
    kind: str,
    networks: Sequence[str],
    batches: str,
    rest: tuple[str, int, int, str, int],
    rounds: int,
    as_json: bool,
) -> None:
    from facescale.bench.run import bench_stages
    from facescale.bench.stages import Stage
    from facescale.plan.units import parse_counts

    stages = [Stage(kind, "", name, size, *rest) for name in networks for size in parse_counts(batches)]
    for number, found in enumerate(bench_stages(stages, rounds)):
        lines = [json.dumps(found.to_dict())] if as_json else table([found.row()]).splitlines()
        print("\n".join(lines if number == 0 or as_json else lines[1:]), flush=True)

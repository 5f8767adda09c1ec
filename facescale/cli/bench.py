"""Commands that measure on this machine: bench heads."""

import json
from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import DeviceOption, JsonOption, app

bench = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command()
def heads(
    heads: Annotated[
        str,
        typer.Option(help="Heads with options, comma-separated: full,attfc:size=65536,unique=true"),
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
    """Measure step time and memory of heads for several numbers of identities, without a backbone.

    Each case runs in a fresh process and is printed as soon as it finishes; --json prints one object per
    line. Memory is device memory: as planned, and the measured peak.
    """
    from facescale.plan.bench import bench_heads, parse_variants
    from facescale.plan.plot import plot_heads, pyplot
    from facescale.plan.units import gb, parse_counts

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
            print(f"{start}{'':20}{gb(one.planned_bytes):>10}  {one.problem}", flush=True)
        else:
            peak = "unknown" if one.peak_bytes is None else gb(one.peak_bytes)
            speed = f"{one.step_ms:>10.2f}{one.images_per_second:>10.0f}"
            print(f"{start}{speed}{gb(one.planned_bytes):>10}{peak:>10}", flush=True)
    if plot:
        plot_heads(measured, plot)

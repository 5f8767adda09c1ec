"""Commands that use a trained model: evaluate, report, export, embed, convert."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facescale.cli.app import DeviceOption, JsonOption, app, show, table
from facescale.cli.bar import progress_bar
from facescale.cli.processes import ProcessesOption, spread
from facescale.cli.shards import ClusterOption, ShardOption, part_of, waiting_text

if TYPE_CHECKING:
    from facescale.evaluate.run_protocols import Evaluation

OnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        metavar="NAME=PATH",
        help="LFW folder, CSV of pairs, .bin, synthetic:..., or a kind of facescale list evaluators.",
    ),
]

ContractOption = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="How a file of another project wants images: colour=BGR,mean=0,std=1,flip=no.",
    ),
]


@app.command()
def evaluate(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Run folder, checkpoint, .safetensors, .pth or .onnx.")],
    on: OnOption = None,
    out: Annotated[Path | None, typer.Option(help="Report (.html); by default in the run folder.")] = None,
    pictures: Annotated[bool, typer.Option(help="Include images of the hardest pairs.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 128,
    limit: Annotated[
        int | None,
        typer.Option(min=2, help="Use a fixed part of each protocol: so many pairs, images or templates."),
    ] = None,
    cache: Annotated[bool, typer.Option(help="Keep embeddings in the run folder, and use them.")] = True,
    contract: ContractOption = None,
    far: Annotated[
        list[float] | None,
        typer.Option(metavar="RATE", help="False-accept rate of pair protocols; may be repeated."),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="CSV?column=NAME&far=RATE",
            help="Errors by group at one threshold; the first column names images or people.",
        ),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="CSV?column=NAME",
            help="Quality of each image, for the error-versus-discard curve; by default the norm.",
        ),
    ] = None,
    adopt: Annotated[
        bool, typer.Option(help="Write the thresholds of the one protocol into the weights file.")
    ] = False,
    device: DeviceOption = "auto",
    processes: ProcessesOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on verification protocols.

    Writes report.html and results.json. Without --on, a run is evaluated on the protocols of its config.
    Every result is kept in RUN/results; the report shows all of them. Several processes share the images.
    """
    spread(context, processes)
    from facescale.data.spec import split_name
    from facescale.distributed.launch import start
    from facescale.evaluate.analyses import Grouping, parse_quality
    from facescale.evaluate.run_protocols import measure
    from facescale.files import require_writable

    if out is not None:
        require_writable(out, "name another file")
    grouping = Grouping.parse(groups) if groups else None
    ranked = parse_quality(quality) if quality else None
    named = [split_name(text) for text in on or []]
    is_graph = model.suffix == ".onnx"  # ONNX Runtime picks a device of its own
    with start("cpu" if is_graph else device) as dist:
        device = device if is_graph else str(dist.device)
        done = measure(
            model,
            named,
            batch_size,
            device,
            cache,
            limit,
            dist,
            contract,
            far or (),
            grouping,
            ranked,
        )
        if not dist.is_main:
            return
    _write_and_show(done, out, pictures, (far or []) if adopt else None, as_json)


def _write_and_show(
    done: "Evaluation", out: Path | None, pictures: bool, adopt_at: list[float] | None, as_json: bool
) -> None:
    """Write the report, adopt thresholds and print the figures, also if the page cannot be written.

    Args:
        done: the measurement.
        out: page, or None for the default.
        pictures: whether it shows images.
        adopt_at: false-accept rates whose thresholds to adopt, all if empty; None adopts none.
        as_json: print JSON.
    """
    from facescale.evaluate.analysis_text import analysis_lines
    from facescale.files import NoSpaceError
    from facescale.inference.load import contract_note

    written, refusal = None, ""
    try:
        written = done.write(out, pictures)
    except OSError as error:
        refusal = str(error)
        if not isinstance(error, NoSpaceError):
            refusal = f"cannot write '{error.filename}' ({error.strerror}); give --out FILE"
    lines = [line for result in done.results for line in (result.summary(), *analysis_lines(result))]
    notes = [note for r in done.results for note in r.notes()]
    if assumed := contract_note(done.model):
        notes.append(assumed)
    adopted = [] if adopt_at is None else done.adopt(adopt_at)
    if adopted:
        notes.append(f"thresholds adopted at FAR {', '.join(f'{rate:g}' for rate in adopted)}")
    results = [result.to_dict() for result in done.results]
    values = {"report": written and str(written), "contract": assumed, "adopted": adopted, "results": results}
    show(values, as_json, "\n".join([*lines, *notes, *([f"report: {written}"] if written else [])]))
    if refusal:
        sys.stdout.flush()
        print(f"facescale: no report: {refusal}", file=sys.stderr)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path | None, typer.Option(help="File to write; by default RUN/report.html.")] = None,
    pictures: Annotated[bool, typer.Option(help="Include images of the hardest pairs.")] = True,
) -> None:
    """Write the report of a run again, from its log and results."""
    from facescale.evaluate.run_protocols import report as write

    print(f"report: {write(run, out, pictures)}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")],
    out: Annotated[Path | None, typer.Option(help="Page to write (.html).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs, and say which differences are real.

    Settings that differ, and figures of the best checkpoints. Accuracy and TAR are compared on the same
    pairs, knowing that pairs share people.
    """
    from facescale.evaluate.compare import compare as compare_runs
    from facescale.evaluate.report.comparison import write_comparison

    found = compare_runs(runs)
    if out is not None:
        write_comparison(out, found)
    parts = [found.setting_rows(), found.figure_rows(), found.difference_rows()]
    page = [f"report: {out}"] if out else []
    text = "\n\n".join([*(table(rows) for rows in parts if rows), *found.notes, *page])
    show(found.to_dict(), as_json, text)


@app.command()
def embed(
    model: Annotated[Path, typer.Argument(help="Run folder, weights or .onnx.")],
    images: Annotated[
        str,
        typer.Argument(help="A photo, a .txt list of photos, a video, a folder of images, or training data."),
    ],
    out: Annotated[Path, typer.Option(help="File: .npz, .parquet or .faiss.")] = Path("embeddings.npz"),
    detect: Annotated[
        bool, typer.Option(help="Find and align the largest face of each photo (extra 'detect').")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 128,
    resize: Annotated[
        bool | None,
        typer.Option(help="Resize images that have another size; by default as the model was trained."),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Of a video, the time from one frame to the next: 0.5s, 200ms; 1s if left out. The largest "
            "face of each is found (extras 'video' and 'detect').",
        ),
    ] = None,
    contract: ContractOption = None,
    device: DeviceOption = "auto",
    shard: ShardOption = None,
    cluster: ClusterOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write the embeddings of face images to a file.

    The same command continues what was interrupted: large sets are kept in parts until all are done.
    With --shard, each of n jobs embeds its part of the images, and the one that ends last writes the file.
    """
    from dataclasses import asdict

    from facescale.data.spec import absolute
    from facescale.gallery.photo_reader import open_faces
    from facescale.inference.embed_parts import EmbedJob, embed_in_steps, embed_on_cluster, embed_part
    from facescale.inference.load import contract_note, load

    part = part_of(shard, cluster)
    loaded = load(model, device, contract=contract)
    job = EmbedJob(
        (str(model.absolute()), device, "fp32", contract),
        open_faces,
        (absolute(images), detect, every),
        batch_size,
        resize,
    )
    if part is not None:
        ended = embed_part(loaded, job, out, part)
        if ended.joined is None:
            values = {"shard": str(part), "images": ended.images, "waiting": list(map(str, ended.waiting))}
            text = f"shard {part}: {ended.images:,} images embedded\n{waiting_text(ended.waiting)}"
            return show(values, as_json, text)
        done = ended.joined
    elif cluster:
        with progress_bar("parts", not as_json) as progress:
            done = embed_on_cluster(loaded, job, out, cluster, progress)
    else:
        with progress_bar("images", not as_json) as progress:
            done = embed_in_steps(loaded, job, out, progress)
    assumed = contract_note(loaded)
    lines = [f"skipped {key}: {reason}" for key, reason in done.bad.items()]
    lines += [f"{note}, --detect finds the faces" for note in done.unaligned]
    lines += [assumed] if assumed else []
    text = "\n".join([f"{done.num_images:,} embeddings in {done.path}", *lines])
    show({**asdict(done), "assumed": assumed}, as_json, text)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Weights of another project (.pth, .pt, .ckpt).")],
    out: Annotated[Path, typer.Option(help="File to write (.safetensors).")],
    origin: Annotated[str | None, typer.Option(help="The project, if the keys fit several.")] = None,
    images: Annotated[str | None, typer.Option(help="Aligned faces to check the colour order with.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert weights of another project.

    Nothing in the file is executed.
    """
    from dataclasses import asdict

    from facescale.inference.convert_file import convert_file

    done = convert_file(checkpoint, out, origin, images)
    text = f"{done.origin}: {done.backbone}, {done.embedding_size}-d -> {done.path}"
    check = f"\n{done.colour}: {done.colour_check}" if done.colour_check else ""
    assumed = f"\n{done.assumed}" if done.assumed else ""
    show(asdict(done), as_json, text + check + assumed)

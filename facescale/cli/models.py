"""Commands that use a trained model: evaluate, report, export, embed, convert."""

from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import DeviceOption, JsonOption, app, show

OnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        metavar="NAME=PATH",
        help="LFW folder, CSV of pairs, .bin, synthetic:..., or a kind of facescale list evaluators.",
    ),
]


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Run folder, checkpoint, .safetensors, .pth or .onnx.")],
    on: OnOption = None,
    out: Annotated[Path | None, typer.Option(help="Report (.html); by default in the run folder.")] = None,
    pictures: Annotated[bool, typer.Option(help="Show the hardest pairs as pictures.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 128,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a model on verification protocols; writes report.html and results.json.

    Without --on, a run is measured on the protocols of its config.
    """
    from facescale.data.spec import split_name
    from facescale.evaluate.run_protocols import evaluate as run_evaluation

    named = [split_name(text) for text in on or []]
    results, report = run_evaluation(model, named, out, pictures, batch_size, device)
    lines = [result.summary() for result in results]
    notes = [note for r in results for note in r.unsupported()]
    values = {"report": str(report), "results": [r.to_dict() for r in results]}
    show(values, as_json, "\n".join([*lines, *notes, f"report: {report}"]))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path | None, typer.Option(help="The page; by default RUN/report.html.")] = None,
) -> None:
    """Write the report of a run from what it has logged, without computing anything."""
    from facescale.evaluate.run_protocols import report as write

    print(f"report: {write(run, out)}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Run folder, checkpoint, .safetensors or .pth.")],
    out: Annotated[Path | None, typer.Option(help="File: .onnx, .pt2 or .safetensors.")] = None,
    images: Annotated[str | None, typer.Option(help="Faces for the parity check.")] = None,
    uint8_input: Annotated[
        bool, typer.Option(help="The graph takes uint8 RGB and normalises itself.")
    ] = False,
    unit_output: Annotated[bool, typer.Option(help="The graph gives the final unit embedding.")] = False,
    half_weights: Annotated[bool, typer.Option(help="ONNX: store weights as fp16.")] = False,
    info: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Stored in the file, e.g. licence=...")
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set.")] = 17,
    as_json: JsonOption = False,
) -> None:
    """Write a model for use elsewhere, and check that it gives the same embeddings."""
    from dataclasses import asdict

    from facescale.export.write import export as write

    path = out or model / "export" / "model.onnx"
    if out is None and not model.is_dir():
        raise ValueError(f"{model} is a file; say where to write with --out FILE.onnx")
    done = write(
        model,
        path,
        images=images,
        uint8_input=uint8_input,
        unit_output=unit_output,
        half_weights=half_weights,
        info=dict(_key_value(text) for text in info or []),
        opset=opset,
    )
    text = (
        f"{done.path}: {done.num_bytes / 1e6:.1f} MB by {done.writer}; checked on {done.checked_on}: "
        f"largest difference {done.max_relative_difference:.1e}, lowest cosine {done.min_cosine:.6f}"
    )
    show(asdict(done), as_json, text)


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--info {text}: write KEY=VALUE, for example licence=CC-BY-4.0")
    return key, value


@app.command()
def embed(
    model: Annotated[Path, typer.Argument(help="Run folder, weights or .onnx.")],
    images: Annotated[str, typer.Argument(help="Folder of images, or any data that train takes.")],
    out: Annotated[Path, typer.Option(help="File: .npz or .parquet.")] = Path("embeddings.npz"),
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 128,
    resize: Annotated[bool, typer.Option(help="Scale images of another size.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Write the embeddings of aligned face images to a file."""
    from dataclasses import asdict

    from facescale.inference.embed_files import embed_to_file
    from facescale.inference.load import load

    done = embed_to_file(load(model, device), images, out, batch_size=batch_size, resize=resize)
    bad = "".join(f"\nskipped {key}: {reason}" for key, reason in done.bad.items())
    show(asdict(done), as_json, f"{done.num_images} embeddings in {done.path}{bad}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Weights of another project (.pth, .pt, .ckpt).")],
    out: Annotated[Path, typer.Option(help="File to write (.safetensors).")],
    origin: Annotated[str | None, typer.Option(help="The project, where the keys do not tell.")] = None,
    images: Annotated[str | None, typer.Option(help="Aligned faces to check the colour order on.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take over weights of another project; the file is read without running anything in it."""
    from facescale.backbones import build
    from facescale.convert.colour_order import swap_test
    from facescale.convert.foreign import convert as read
    from facescale.data import open_reader
    from facescale.inference.weights import save_model

    if out.suffix != ".safetensors":
        raise ValueError(f"cannot write '{out}'; its suffix must be .safetensors")
    found = read(checkpoint, origin)
    name, size = found.backbone["name"], found.backbone["embedding_size"]
    check = None
    if images is not None:
        net = build(name, size, **found.backbone["options"])
        net.load_state_dict(found.state_dict)
        check = swap_test(net, found.contract, open_reader(images)).verdict
    info = {"origin": found.origin, "converted_from": checkpoint.name}
    save_model(out, found.state_dict, found.backbone, found.contract, info=info)
    values = {"path": str(out), "origin": found.origin, "backbone": name, "embedding_size": size}
    values |= {"colour": found.contract.colour, "colour_check": check}
    words = f"{found.origin}: {name} with {size} numbers an embedding -> {out}"
    show(values, as_json, words + (f"\n{found.contract.colour}: {check}" if check else ""))

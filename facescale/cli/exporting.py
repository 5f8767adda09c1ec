"""The command that writes a model for other programs: export."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facescale.cli.app import JsonOption, app, key_value, show

if TYPE_CHECKING:
    from facescale.export.accuracy import Accuracy


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Run folder, checkpoint, .safetensors or .pth.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File: .onnx, .pt2, .aoti.pt2 or .safetensors; by default RUN/export/model.onnx. With "
            "--layout, a folder."
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="file, huggingface (weights, config.json and a model card) or mfr (a submission to the MFR "
            "benchmark, with its checks)."
        ),
    ] = "file",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, or int8 (ONNX; ranges measured on faces).")
    ] = "fp32",
    images: Annotated[
        str | None,
        typer.Option(help="Faces to compare embeddings on; by default those of the run's protocol."),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Protocol to measure accuracy on before and after; by default the run's evaluation sets.",
        ),
    ] = None,
    accuracy: Annotated[bool, typer.Option(help="Measure the accuracy before and after.")] = True,
    max_drop: Annotated[
        float, typer.Option(help="How much the accuracy may fall; a file that loses more is not written.")
    ] = 0.005,
    calibrate_on: Annotated[
        str | None, typer.Option(help="int8: faces to measure ranges on; by default the training images.")
    ] = None,
    uint8_input: Annotated[
        bool, typer.Option(help="Put the normalisation into the graph; its input is uint8 RGB.")
    ] = False,
    unit_output: Annotated[
        bool, typer.Option(help="Put flip fusion and L2 normalisation into the graph.")
    ] = False,
    half_weights: Annotated[bool, typer.Option(help="ONNX: store weights as fp16.")] = False,
    info: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Metadata to store in the file, e.g. licence=..."),
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX opset version.")] = 17,
    as_json: JsonOption = False,
) -> None:
    """Export to ONNX, torch.export or safetensors, with checks.

    The file is written if its embeddings are those of the model and it keeps the accuracy.
    """
    from facescale.registry import lookup

    told = dict(key_value(text) for text in info or [])
    measured = check if accuracy else ()
    lookup("layout", dict.fromkeys(("file", "huggingface", "mfr")), layout)
    if layout != "file":
        if out is None:
            raise ValueError(f"layout {layout} is a folder; name it with --out FOLDER")
        others = uint8_input or unit_output or half_weights or calibrate_on
        if others or precision != "fp32" or opset != 17:
            raise ValueError(
                f"layout {layout} decides the graph itself; remove --precision, --opset, --calibrate-on, "
                "--uint8-input, --unit-output and --half-weights"
            )
        if layout == "mfr":
            _mfr(model, out, measured, max_drop, images, told, as_json)
        else:
            _hub(model, out, measured, images, told, as_json)
        return
    from facescale.export.write import export as write

    done = write(
        model,
        out,
        images=images,
        uint8_input=uint8_input,
        unit_output=unit_output,
        precision=precision,
        half_weights=half_weights,
        opset=opset,
        calibrate_on=calibrate_on,
        check=measured,
        max_drop=max_drop,
        info=told,
    )
    ranges = f"\nranges measured on {done.calibrated_on}" if done.calibrated_on else ""
    text = (
        f"{done.path}: {done.num_bytes / 1e6:.1f} MB by {done.writer}; checked on {done.checked_on}: "
        f"largest difference {done.max_relative_difference:.1e}, lowest cosine {done.min_cosine:.6f}"
    )
    show(asdict(done), as_json, text + ranges + _accuracy_lines(done.accuracy))


def _accuracy_lines(found: "tuple[Accuracy, ...]") -> str:
    lines = [
        f"\n{one.protocol}: {one.figure} {one.network:.2%} before, {one.file:.2%} after" for one in found
    ]
    return "".join(lines) or "\naccuracy was not measured; --check NAME=PATH names a protocol"


def _hub(
    model: Path,
    out: Path,
    check: list[str] | tuple[()] | None,
    images: str | None,
    info: dict[str, str],
    as_json: bool,
) -> None:
    from facescale.export.huggingface import write_hub

    done = write_hub(model, out, check=check, images=images, info=info)
    figures = "".join(
        f"\n{name} {value:.2%}" for name, value in done.figures.items() if name.endswith("/accuracy")
    )
    text = f"{done.folder}: model.safetensors, config.json, README.md; licence {done.licence}{figures}"
    if done.to_fill_in:
        text += f"\nto fill in by hand in README.md: {', '.join(done.to_fill_in)}"
    show(asdict(done), as_json, text)


def _mfr(
    model: Path,
    out: Path,
    check: list[str] | tuple[()] | None,
    max_drop: float,
    images: str | None,
    info: dict[str, str],
    as_json: bool,
) -> None:
    from facescale.export.mfr import write_submission

    if info:
        raise ValueError("layout mfr has no place for --info; remove it")
    done = write_submission(model, out, images=images, check=check, max_drop=max_drop)
    checks = "".join(f"\n{name}: {value}" for name, value in done.checks.items())
    text = (
        f"{done.folder}/submission.zip: lowest cosine {done.min_cosine:.6f}; "
        f"{done.milliseconds:.1f} ms an image on this CPU (the server allows 15 on a V100){checks}"
    )
    show(asdict(done), as_json, text + _accuracy_lines(done.accuracy))

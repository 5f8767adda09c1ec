"""Commands about photos: prepare, align."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facescale.cli.app import JsonOption, app, show
from facescale.cli.bar import progress_bar
from facescale.cli.shards import ClusterOption, ShardOption, part_of, waiting_text

if TYPE_CHECKING:
    from facescale.prepare.pipeline import PartDone, Prepared

DetectorOption = Annotated[str, typer.Option(help="yuface, centerface, or auto: whichever is installed.")]
FaceOption = Annotated[str, typer.Option(help="Which of several faces: largest or central.")]
SizeOption = Annotated[int, typer.Option(min=16, help="Side of the crop, pixels.")]
MinScoreOption = Annotated[float, typer.Option(help="Least score of the detector, 0 to 1.")]


@app.command()
def prepare(
    photos: Annotated[Path, typer.Argument(help="Folder of photos, one folder per identity.")],
    dataset: Annotated[Path, typer.Argument(help="Folder to create.")],
    identity: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Identity is this pattern's first group in a photo's path."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV with columns path and identity.")] = None,
    detector: DetectorOption = "auto",
    landmarks: Annotated[
        Path | None, typer.Option(help="File of lines 'path x1 y1 ... x5 y5 [score]' in place of a detector.")
    ] = None,
    face: FaceOption = "largest",
    single_face: Annotated[bool, typer.Option(help="Drop photos with several faces.")] = False,
    size: SizeOption = 112,
    min_score: MinScoreOption = 0.5,
    min_face: Annotated[float, typer.Option(help="Least size of a face in its photo, pixels.")] = 40,
    min_sharpness: Annotated[float, typer.Option(help="Least variance of the Laplacian; 0: any.")] = 10,
    min_brightness: Annotated[float, typer.Option(help="Least mean grey value, 0 to 255.")] = 25,
    max_brightness: Annotated[float, typer.Option(help="Greatest mean grey value, 0 to 255.")] = 235,
    max_turn: Annotated[float, typer.Option(help="0.2 drops most profiles; 1 drops none.")] = 1,
    max_misfit: Annotated[float, typer.Option(help="Landmarks' greatest distance from the template.")] = 20,
    min_images: Annotated[int, typer.Option(min=1, help="Drop identities with fewer crops.")] = 1,
    model: Annotated[
        str | None, typer.Option(help="Run or weights file whose embeddings find near-duplicates.")
    ] = None,
    near: Annotated[
        float | None,
        typer.Option(help="Cosine from which crops are compared by pixels; default: what copies reach."),
    ] = None,
    form: Annotated[str, typer.Option(help="recordio, im2rec or folder.")] = "recordio",
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    shard: ShardOption = None,
    cluster: ClusterOption = "",
    as_json: JsonOption = False,
) -> None:
    """Turn photos into a data set of aligned faces.

    Faces are found, aligned and checked, duplicates dropped; report.html in the data set shows what became of
    each photo. The same command continues a run that was interrupted. With --shard, each of n jobs examines
    its part of the photos, and the one that ends last writes the data set; without it, what jobs have done is
    used.
    """
    from facescale.prepare.detect import available_detector
    from facescale.prepare.examine import Settings
    from facescale.prepare.pipeline import Options, Prepared, prepare_part
    from facescale.prepare.pipeline import prepare as run
    from facescale.prepare.quality import Limits
    from facescale.prepare.workers import default_workers

    if landmarks and detector != "auto":
        raise ValueError(f"--landmarks replaces --detector {detector}; give one of them")
    chosen = "" if landmarks else available_detector() if detector == "auto" else detector
    settings = Settings(chosen, str(landmarks) if landmarks else None, min_score, face, size)
    limits = Limits(min_face, min_sharpness, min_brightness, max_brightness, max_turn, max_misfit, min_score)
    options = Options(
        settings=settings,
        limits=limits,
        pattern=identity,
        labels=labels,
        single_face=single_face,
        min_images=min_images,
        model=model,
        near=near,
        form=form,
        workers=workers or default_workers(),
        cluster=cluster,
    )
    part = part_of(shard, cluster)
    with progress_bar("photos", not as_json) as progress:
        done = (
            run(photos, dataset, options, progress)
            if part is None
            else prepare_part(photos, dataset, options, part, progress)
        )
    if isinstance(done, Prepared):
        _show_prepared(done, as_json)
    else:
        _show_part(done, as_json)


def _show_prepared(done: "Prepared", as_json: bool) -> None:
    continued = [f"continued after {done.continued} photos"] if done.continued else []
    written = f"{done.folder}: the data set, report.html (with pictures), photos.csv (every file)"
    values = {"folder": str(done.folder), "continued": done.continued, **done.report.to_dict()}
    show(values, as_json, "\n".join([*continued, *done.report.lines(), written]))


def _show_part(done: "PartDone", as_json: bool) -> None:
    if done.joined:
        return _show_prepared(done.joined, as_json)
    values = {
        "shard": str(done.part),
        "photos": done.photos,
        "continued": done.continued,
        "waiting": list(map(str, done.waiting)),
    }
    text = f"shard {done.part}: {done.photos:,} photos examined, {done.continued:,} of them before"
    show(values, as_json, f"{text}\n{waiting_text(done.waiting)}")


@app.command("align")
def align_command(
    photo: Annotated[Path, typer.Argument(help="Photo of a face.")],
    out: Annotated[Path, typer.Argument(help="Aligned crop to write (.png or .jpg).")],
    detector: DetectorOption = "auto",
    face: FaceOption = "largest",
    size: SizeOption = 112,
    min_score: MinScoreOption = 0.5,
) -> None:
    """Cut the aligned face out of one photo."""
    from facescale.prepare.detect import available_detector
    from facescale.prepare.examine import Settings, align_photo
    from facescale.prepare.write_crop import check_crop_name, write_crop

    check_crop_name(out)
    chosen = available_detector() if detector == "auto" else detector
    crop, num_faces = align_photo(photo, Settings(chosen, None, min_score, face, size))
    write_crop(out, crop)
    others = f"; the photo shows {num_faces} faces, this is the {face} one" if num_faces > 1 else ""
    print(f"{out}: {size}x{size} pixels{others}")

"""Commands that recognise people: verify, enrol, search, gallery."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facescale.cli.app import DeviceOption, IndexOption, JsonOption, app, show, table

if TYPE_CHECKING:
    from facescale.gallery.gallery import Gallery
    from facescale.inference.model import Model

gallery = typer.Typer(help="List or change the people of a gallery.", no_args_is_help=True)
app.add_typer(gallery, name="gallery")

GalleryArgument = Annotated[Path, typer.Argument(metavar="GALLERY", help="The gallery (one file).")]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", help="Run folder, weights or .onnx; by default the last model of the gallery."),
]
FarOption = Annotated[
    float,
    typer.Option("--far", min=0, max=1, help="False-accept rate: the fraction of impostors accepted."),
]
FAR = 1e-3


@app.command()
def verify(
    first: Annotated[Path, typer.Argument(metavar="A", help="A photo.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another photo.")],
    model: Annotated[Path, typer.Option(help="Run folder, weights or .onnx.")],
    far: FarOption = FAR,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Decide whether two photos show the same person.

    The threshold is that of --far, a false-accept rate that evaluate --adopt measured.
    """
    from facescale.gallery.photos import embed_photos, face_finder
    from facescale.inference.load import load

    loaded = load(model, device)
    threshold = loaded.threshold(far)
    notes: dict[str, str] = {}
    faces, left_out = embed_photos(loaded, [first, second], face_finder(), notes)
    for path, reason in left_out.items():
        raise ValueError(f"'{path}' cannot be compared: {reason}")
    cosine = float(faces[0].embedding @ faces[1].embedding)
    same = cosine >= threshold.cosine
    values = {"cosine": cosine, "threshold": threshold.cosine, "far": far, "measured_on": threshold.on}
    words = "the same person" if same else "different people"
    text = (
        f"{words}: cosine {cosine:.3f}, threshold {threshold.cosine:.3f} "
        f"at a false-accept rate of {far:g} (measured on {threshold.on})"
    )
    show({"same": same, **values, "notes": notes}, as_json, "\n".join([*_noted(notes), text]))


@app.command()
def enrol(
    path: GalleryArgument,
    photos: Annotated[Path, typer.Argument(help="One folder per person; with --name, photos of one person.")],
    model: ModelOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the person on all photos.")] = None,
    min_quality: Annotated[float, typer.Option(min=0, max=1, help="Skip photos of lower quality.")] = 0.0,
    far: FarOption = FAR,
    index: Annotated[
        bool, typer.Option("--index", help="Make the index of the gallery afterwards (extra 'index').")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Add people to a gallery, or create one."""
    from dataclasses import asdict

    from facescale.gallery.codes import require_extra
    from facescale.gallery.enrol import enrol as add
    from facescale.gallery.index_file import write_index
    from facescale.gallery.photos import face_finder, people_of, photos_of

    if index:
        require_extra()
    people = {name: photos_of(photos)} if name else people_of(photos)
    found, loaded = _opened(path, model, device, create=True)
    known = loaded.thresholds.get(far)
    done = add(
        found,
        loaded,
        people,
        find=face_finder(),
        min_quality=min_quality,
        threshold=known.cosine if known else None,
    )
    lines = _noted(done.notes)
    lines += [f"left out {key}: {reason}" for key, reason in done.left_out.items()]
    lines += [
        f"odd: {key} is unlike this person's other photos (cosine {cosine:.3f})"
        for key, cosine in done.odd.items()
    ]
    who = "1 person" if len(done.people) == 1 else f"{len(done.people)} people"
    photos_of_them = "1 photo" if done.num_photos == 1 else f"{done.num_photos} photos"
    lines.append(f"{who} with {photos_of_them} {'is' if who == '1 person' else 'are'} enrolled in {path}")
    if not done.people:
        raise ValueError("\n".join([*lines[:-1], "no photo could be enrolled"]))
    if index:
        lines.append(f"index: {write_index(found)}")
    show(asdict(done), as_json, "\n".join(lines))


@app.command()
def search(
    path: GalleryArgument,
    photos: Annotated[Path, typer.Argument(help="A photo, or a folder of photos.")],
    model: ModelOption = None,
    far: FarOption = FAR,
    top: Annotated[int, typer.Option(min=1, help="Number of people to show per photo.")] = 3,
    index: IndexOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Identify the people on photos by a gallery."""
    import numpy as np

    from facescale.gallery.people_search import PeopleSearch
    from facescale.gallery.photos import embed_photos, face_finder, photos_of
    from facescale.gallery.search import strangers_named

    paths = photos_of(photos)
    found, loaded = _opened(path, model, device)
    threshold = loaded.threshold(far)
    people = PeopleSearch(found, index)
    notes: dict[str, str] = {}
    faces, left_out = embed_photos(loaded, paths, face_finder(), notes)
    matches = people.search(np.stack([f.embedding for f in faces]), top) if faces else []
    rows: list[dict[str, Any]] = []
    for face, best in zip(faces, matches, strict=True):
        margin = best[0].cosine - best[1].cosine if len(best) > 1 else None
        rows.append(
            {
                "photo": face.key,
                "who": best[0].name if best[0].cosine >= threshold.cosine else None,
                "cosine": best[0].cosine,
                "margin": margin,
                "best": [{"name": one.name, "cosine": one.cosine} for one in best],
            }
        )
    strangers = strangers_named(far, found.num_people())
    values = {
        "threshold": threshold.cosine,
        "far": far,
        "measured_on": threshold.on,
        "strangers_named": strangers,
        "photos": rows,
        "left_out": left_out,
        "notes": notes,
        "index": people.note,
    }
    lines = [*_noted(notes), *(_sentence(row) for row in rows)]
    lines += [f"{key}: no face ({reason})" for key, reason in left_out.items()]
    lines += [people.note] if people.note else []
    lines.append(f"threshold {threshold.cosine:.3f}: false-accept rate {far:g}, measured on {threshold.on}")
    lines.append(
        f"a stranger is compared with {found.num_people():,} people: up to"
        f" {100 * strangers:.3g}% of strangers are taken for one of them"
    )
    show(values, as_json, "\n".join(lines))


def _noted(notes: dict[str, str]) -> list[str]:
    return [f"note on {key}: {note}" for key, note in notes.items()]


def _sentence(row: dict[str, Any]) -> str:
    best = ", ".join(f"{one['name']} {one['cosine']:.3f}" for one in row["best"])
    return f"{row['photo']}: {row['who'] or 'nobody'} (nearest: {best})"


@gallery.command("list")
def list_people(path: GalleryArgument, as_json: JsonOption = False) -> None:
    """List the enrolled people."""
    from facescale.gallery.gallery import Gallery

    rows = [
        {"name": one.name, "photos": len(one.keys), "files": ", ".join(one.keys)}
        for one in Gallery(path).people()
    ]
    show(rows, as_json, table(rows) if rows else f"the gallery {path} is empty")


@gallery.command()
def index(path: GalleryArgument) -> None:
    """Make the index for searching a large gallery.

    It is a file beside the gallery (extra 'index').
    """
    from facescale.gallery.gallery import Gallery
    from facescale.gallery.index_file import write_index

    found = Gallery(path)
    print(f"{write_index(found)} is the index of {found.num_people():,} people")


@gallery.command()
def remove(path: GalleryArgument, name: Annotated[str, typer.Argument(help="The person.")]) -> None:
    """Remove a person and all their photos."""
    from facescale.gallery.gallery import Gallery

    Gallery(path).remove(name)
    print(f"{name} is no longer in {path}")


@gallery.command()
def rename(
    path: GalleryArgument,
    name: Annotated[str, typer.Argument(help="The person.")],
    new_name: Annotated[str, typer.Argument(help="The new name.")],
) -> None:
    """Rename a person."""
    from facescale.gallery.gallery import Gallery

    Gallery(path).rename(name, new_name)
    print(f"{name} is now called {new_name}")


@gallery.command()
def merge(
    path: GalleryArgument,
    name: Annotated[str, typer.Argument(help="The entry that receives all photos.")],
    other: Annotated[str, typer.Argument(help="The same person under another name.")],
) -> None:
    """Merge two entries of the same person."""
    from facescale.gallery.gallery import Gallery

    Gallery(path).merge(name, other)
    print(f"{other} is now {name}")


@gallery.command()
def split(
    path: GalleryArgument,
    name: Annotated[str, typer.Argument(help="The entry with photos of two people.")],
    new_name: Annotated[str, typer.Argument(help="Name of the second person.")],
    photos: Annotated[list[str], typer.Argument(help="Photos of the second person, as in 'gallery list'.")],
) -> None:
    """Move some photos of a person to a new one."""
    from facescale.gallery.gallery import Gallery

    Gallery(path).split(name, new_name, photos)
    print(f"{len(photos)} photos of {name} are now those of {new_name}")


@gallery.command()
def check(
    path: GalleryArgument,
    model: ModelOption = None,
    far: FarOption = FAR,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show who is most similar to whom, and who is too similar."""
    from facescale.gallery.search import too_alike

    found, loaded = _opened(path, model, device)
    threshold = loaded.threshold(far)
    names, templates = found.templates()
    nearest, pairs = too_alike(names, templates, threshold.cosine)
    rows = [
        {"name": name, "most like": one.name, "cosine": f"{one.cosine:.3f}"}
        for name, one in zip(names, nearest, strict=False)
    ]
    values = {"threshold": threshold.cosine, "nearest": rows, "too_alike": pairs}
    lines = [table(rows)] if rows else ["there is nobody to compare with"]
    lines += [
        f"{a} and {b} are too alike to be told apart (cosine {cosine:.3f}, threshold "
        f"{threshold.cosine:.3f}); if they are one person, merge them"
        for a, b, cosine in pairs
    ]
    show(values, as_json, "\n".join(lines))


def _opened(path: Path, model: Path | None, device: str, create: bool = False) -> "tuple[Gallery, Model]":
    """The gallery and the model for it."""
    from facescale.gallery.gallery import Gallery
    from facescale.inference.load import load

    if create and not path.exists():
        if model is None:
            raise ValueError(f"the gallery '{path}' does not exist yet; say which --model it is for")
        loaded = load(model, device)
        made = Gallery.create(path, loaded.fingerprint, loaded.embedding_size, str(model.resolve()))
        return made, loaded
    found = Gallery(path)
    used = model or Path(found.model)
    if not used.exists():
        raise ValueError(f"the model of the gallery '{path}' was at '{used}'; say where it is with --model")
    loaded = load(used, device)
    found.check_model(loaded.fingerprint)
    return found, loaded

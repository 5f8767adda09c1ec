"""Write image files: a folder per identity, with or without a list of them."""

from collections.abc import Callable
from pathlib import Path

from facescale.data.readers.base import Reader
from facescale.data.writers.base import EncodedImage, Written, encoded_images
from facescale.files import one_line

_WEBFACE_ROOT = 205_991  # identities of one root of WebFace42M: its ten hold 2,059,906

PathOf = Callable[[EncodedImage, int], str]  # image, number within its identity -> path


def write_folder(reader: Reader, folder: Path) -> Written:
    """One folder per identity; labels and image numbers have leading zeros, so that names sort as numbers."""
    label_digits, image_digits = len(str(reader.num_ids - 1)), len(str(len(reader) - 1))

    def path_of(image: EncodedImage, number: int) -> str:
        return f"{image.identity:0{label_digits}d}/{image.number:0{image_digits}d}{image.suffix}"

    return _write_files(reader, folder, path_of, None)


def write_list(reader: Reader, folder: Path) -> Written:
    """Image files in folders of 1,000 and train.lst, the list that im2rec packs: index, label, path."""
    return _write_files(
        reader,
        folder,
        lambda image, number: f"images/{image.number // 1000:05d}/{image.number:08d}{image.suffix}",
        ("train.lst", "{index}\t{identity:f}\t{path}\n"),
    )


def write_webface(reader: Reader, folder: Path) -> Written:
    """Folders as those of WebFace42M, ``0/0_0_0000000/0_0.jpg``, and label.txt with lines "path label"."""

    def path_of(image: EncodedImage, number: int) -> str:
        root = image.identity // _WEBFACE_ROOT
        return f"{root}/{root}_0_{image.identity:07d}/{root}_{number}{image.suffix}"

    return _write_files(reader, folder, path_of, ("label.txt", "{path} {identity}\n"))


def _write_files(reader: Reader, folder: Path, path_of: PathOf, listed: tuple[str, str] | None) -> Written:
    """Write every image to its path, and a line for each into a list of the name and form ``listed``."""
    bad: dict[str, str] = {}
    lines: list[str] = []
    counts: dict[int, int] = {}
    for image in encoded_images(reader, bad):
        number = counts.get(image.identity, 0)
        counts[image.identity] = number + 1
        path = path_of(image, number)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(image.data)
        if listed:
            lines.append(listed[1].format(index=image.number, identity=image.identity, path=one_line(path)))
    if listed:
        (folder / listed[0]).write_text("".join(lines), "utf-8")
    return Written(len(reader) - len(bad), reader.num_ids, bad)

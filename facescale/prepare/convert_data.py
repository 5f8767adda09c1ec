"""Write a data set in another format: RecordIO for speed and for other tools, or plain folders."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from facescale.data.loading.decode import encode_jpeg
from facescale.data.readers.base import BadRecordError, Reader, identity_names
from facescale.data.readers.labels_file import LABELS
from facescale.data.readers.pictures import picture_suffix
from facescale.data.writers.recordio import Written, write_records
from facescale.registry import lookup


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        folder: where.
        form: a key of ``FORMS``.
        num_images: images written.
        num_ids: identities.
        bad: name -> reason of images that could not be read and were left out.
    """

    folder: Path
    form: str
    num_images: int
    num_ids: int
    bad: dict[str, str]


def convert_data(reader: Reader, folder: str | Path, *, form: str = "recordio") -> Converted:
    """Write the images of ``reader`` to a new ``folder``, and the names of the identities to its labels.json.

    Encoded images are copied byte for byte. labels.json maps each label, that is the number of an identity,
    to what the source calls it. The folder appears when everything is written.

    Args:
        reader: the source.
        folder: must not exist, or be empty.
        form: "recordio" (as InsightFace packs), "im2rec" (as MXNet packs) or "folder" (one folder per
            identity, named by its label).

    Raises:
        ValueError: an unknown form, or a folder that is not empty.
    """
    folder = Path(folder)
    write = lookup("form", FORMS, form)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"'{folder}' is not an empty folder; choose a new one for the converted data")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        written = write(reader, unfinished)
        labels = dict(enumerate(identity_names(reader)))
        (unfinished / LABELS).write_text(
            # Bytes of a name that are not UTF-8 become what JSON reads back as the same name: \udcfc.
            json.dumps(labels, indent=0, ensure_ascii=False),
            "utf-8",
            "backslashreplace",
        )
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Converted(folder, form, written.num_images, written.num_ids, written.bad)


def _write_folder(reader: Reader, folder: Path) -> Written:
    """One folder per identity; labels and image numbers have leading zeros, so that names sort as numbers."""
    label_digits, image_digits = len(str(reader.num_ids - 1)), len(str(len(reader) - 1))
    bad: dict[str, str] = {}
    for index in range(len(reader)):
        try:
            data, identity = reader[index]
        except BadRecordError as error:
            bad[reader.key(index)] = str(error)
            continue
        image = data if isinstance(data, bytes) else encode_jpeg(data)
        path = (
            folder
            / f"{identity:0{label_digits}d}"
            / f"{index:0{image_digits}d}{picture_suffix(image[:12]) or '.jpg'}"
        )
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image)
    return Written(len(reader) - len(bad), reader.num_ids, bad)


def _write_im2rec(reader: Reader, folder: Path) -> Written:
    return write_records(reader, folder, layout="im2rec")


FORMS: dict[str, Callable[[Reader, Path], Written]] = {
    "recordio": write_records,
    "im2rec": _write_im2rec,
    "folder": _write_folder,
}

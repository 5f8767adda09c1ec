"""Write a data set in another format: for speed, for other tools, or as plain files."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from facescale.checksums import Checksums, write_manifest
from facescale.data.readers.base import Reader, people_of
from facescale.data.readers.info_file import data_info, write_info
from facescale.data.readers.labels_file import LABELS
from facescale.data.writers import FILES, WRITERS
from facescale.files import naming_full_disk
from facescale.registry import lookup


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        folder: where.
        form: a key of ``WRITERS``.
        num_images: images written.
        num_ids: identities.
        bad: name -> reason of images that could not be read and were left out.
    """

    folder: Path
    form: str
    num_images: int
    num_ids: int
    bad: dict[str, str]


def convert_data(
    reader: Reader,
    folder: str | Path,
    *,
    form: str = "recordio",
    info: Mapping[str, str] | None = None,
) -> Converted:
    """Write the images of ``reader`` to a new ``folder``, and the names of the identities to its labels.json.

    Encoded images are copied byte for byte. labels.json maps each label, that is the number of an identity,
    to what the source calls it; dataset.json holds licence, source and the like, manifest.json the
    checksums of the files of a packed set. The folder appears when everything is written.

    Args:
        reader: the source.
        folder: must not exist, or be empty.
        form: "recordio" (as InsightFace packs), "im2rec" (as MXNet packs), "folder" (one folder per identity,
            named by its label), or another key of ``facescale.data.writers.WRITERS``.
        info: licence, source and the like, by key; added to what the source tells of itself.

    Raises:
        ValueError: an unknown form, or a folder that is not empty.
    """
    folder = Path(folder)
    write = lookup("form", WRITERS, form)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"'{folder}' is not an empty folder; choose a new one for the converted data")
    with naming_full_disk(folder), _beside(folder) as unfinished:
        written = write(reader, unfinished)
        labels = dict(enumerate(_names(reader)))
        (unfinished / LABELS).write_text(
            # Bytes of a name that are not UTF-8 become what JSON reads back as the same name: \udcfc.
            json.dumps(labels, indent=0, ensure_ascii=False),
            "utf-8",
            "backslashreplace",
        )
        write_info(unfinished, {**data_info(reader), **(info or {})})
        if form not in FILES:  # of single images, the manifest would be as large as the names of all
            Checksums().write_part(unfinished, [path for path in unfinished.iterdir() if path.is_file()], 0)
            write_manifest(unfinished, 1)
        unfinished.replace(folder)
    return Converted(folder, form, written.num_images, written.num_ids, written.bad)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder for what is unfinished; it is deleted unless it is renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _names(reader: Reader) -> list[str]:
    """Original names of the identities; those of joined sources behind the source's."""
    people = people_of(reader)
    if len(people.sources) == 1:
        return list(people.names)
    sources = [people.sources[number] for number in people.source_N.tolist()]
    return [f"{source}/{name}" for source, name in zip(sources, people.names, strict=True)]

"""Write tar shards as webdataset names them: NUMBER.jpg and NUMBER.cls for each image."""

import io
import tarfile
from pathlib import Path

from facescale.data.readers.base import Reader
from facescale.data.writers.base import Written, encoded_images

_IMAGES, _BYTES = 10_000, 1 << 30  # the most of one shard


def write_shards(reader: Reader, folder: Path) -> Written:
    """Shards train-000000.tar, train-000001.tar, ... of up to 10,000 images and 1 GB."""
    bad: dict[str, str] = {}
    shard: tarfile.TarFile | None = None
    number = images = size = 0
    try:
        for image in encoded_images(reader, bad):
            if shard is not None and (images == _IMAGES or size + len(image.data) > _BYTES):
                shard.close()
                shard = None
            if shard is None:
                path = folder / f"train-{number:06d}.tar"
                shard = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                number, images, size = number + 1, 0, 0
            _add(shard, f"{image.number:09d}{image.suffix}", image.data)
            _add(shard, f"{image.number:09d}.cls", str(image.identity).encode())
            images, size = images + 1, size + len(image.data)
    finally:
        if shard is not None:
            shard.close()
    return Written(len(reader) - len(bad), reader.num_ids, bad)


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # with time, user and group 0, so that the same set gives the same bytes
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))

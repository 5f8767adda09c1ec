"""Read tar shards as webdataset names them, at any place and in any order, from disk or from a URL."""

from collections.abc import Sequence
from pathlib import Path

from facescale.data.readers.labelled import Labelled
from facescale.data.readers.shard_files import ShardFiles, open_shards
from facescale.data.readers.shard_index import shard_index
from facescale.data.sampling.counter_rng import Uints, hash64_each


class ShardReader(Labelled):
    """Tar shards of images (webdataset): ``DIR``, ``DIR/train-{000..012}.tar``, or a URL of such.

    A sample is the files of one name: its image (jpg, png, ...) and its label (.cls, a number; or .json with
    "label"). Archives without labels have a folder for each identity. The place of every image is read from
    the headers once and kept in an index, so the order of a training is exact, as for any other reader.

    Attributes:
        files: the shards.

    Raises:
        ValueError: a file is missing, no tar archive, compressed or truncated; some images have no label.
    """

    def __init__(self, spec: str | Path, files: ShardFiles | None = None) -> None:
        self.files = open_shards(str(spec)) if files is None else files
        self._index = shard_index(self.files)
        super().__init__(Path(self.files.names[0]).parent, self._index.labels, self._index.id_N)

    @property
    def num_ids(self) -> int:
        """Number of identities that have images."""
        return len(self._index.folders) or super().num_ids

    @property
    def names(self) -> Sequence[str]:
        """Label of each identity, or its folder within the archives."""
        folders = self._index.folders
        return [folders[i] for i in range(len(folders))] or super().names

    @property
    def num_shards(self) -> int:
        """Number of files."""
        return len(self.files.names)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of ``index``.

        Raises:
            BadRecordError: its file cannot be read.
        """
        places = self._index
        data = self.files.read(
            int(places.shard_N[index]), int(places.offset_N[index]), int(places.size_N[index])
        )
        return data, int(self.ids[index])

    def key(self, index: int) -> str:
        """File and sample of image ``index``."""
        return f"{Path(self.files.names[int(self._index.shard_N[index])]).name}#{self._index.keys[index]}"

    def image_hashes(self) -> Uints:
        """A hash of the place of each image, uint64 (N,)."""
        return hash64_each(self._index.shard_N, self._index.offset_N, self._index.size_N)

    def image_size(self, index: int) -> int | None:
        """0: the size is part of ``image_hashes``."""
        return 0

"""``facescale clean`` on many machines: jobs of an array, or the workers of a cluster, embed the images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from facescale.clean.embedded import Embedding, Progress, chunks_of, embed_chunks
from facescale.clean.run import DATA, Options, open_all
from facescale.data import open_reader
from facescale.data.images import Images, ReaderImages
from facescale.data.readers.base import Reader, image_hashes
from facescale.jobs import Part
from facescale.jobs.cluster import Cluster, check_same, check_shared

_PARTS = 4  # of a source, for each thread of the workers

Source = tuple[str, Images]  # what to call it, and its images


@dataclass(frozen=True)
class CleanJob:
    """What `facescale.clean.run.clean` takes, as words; a worker elsewhere can follow it.

    Attributes:
        data: what `open_reader` takes, its paths absolute, as all here.
        model: what `facescale.load` takes.
        out: folder.
        against: test sets.
        edits: edit lists of the data.
        options: as for `clean`; thresholds have no effect.
    """

    data: str
    model: str
    out: str
    against: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)

    def open_sources(self) -> tuple[list[Source], Embedding, str]:
        """The sources, the network, and a text that differs where another machine sees other ones."""
        data = open_reader(self.data, edits=self.edits)
        sources, how = _open(data, self.model, Path(self.out), self.against, self.options, None)
        names = blake2b(image_hashes(data).tobytes(), digest_size=16).hexdigest()
        seen = [how.model.fingerprint, names, [len(images) for _, images in sources]]
        return sources, how, json.dumps(seen)


def embed_shard(
    data: Reader,
    model: str | Path,
    out: str | Path,
    part: Part,
    against: Sequence[str] = (),
    options: Options | None = None,
    progress: Progress | None = None,
) -> int:
    """Embed one part of the images of `clean`, which takes nearly all of its time, and keep the embeddings.

    Any number of machines that share the folder ``out`` may do parts at once, in any order; one that was
    lost is started again. `clean` with the same arguments then finds them, and computes what is missing.

    Args:
        data: as for `clean`, as all but ``part``.
        model: the same.
        out: the same.
        part: which images, of the data set and of each test set.
        against: the same.
        options: the same; thresholds have no effect.
        progress: the same.

    Returns:
        How many images can be read.

    Raises:
        ValueError: as `clean`; nothing is said of images that cannot be read, which `clean` reports.
    """
    sources, how = _open(data, model, Path(out), against, options or Options(), progress)
    return sum(embed_chunks(images, chunks_of(len(images), part), how, name) for name, images in sources)


def embed_on_cluster(job: CleanJob, address: str, progress: Progress | None = None) -> int:
    """Embed the images of `clean` on the workers of a Dask cluster, which must see the files as this machine.

    `clean` with the same arguments then finds the embeddings. A chunk of images whose worker is lost is
    embedded by another one; the same call continues what was interrupted.

    Args:
        job: what is embedded.
        address: of the scheduler.
        progress: told what is embedded.

    Returns:
        How many images can be read.

    Raises:
        ValueError: as `clean`, the cluster cannot be used, or a worker sees other files than this machine.
        RuntimeError: a worker failed.
    """
    sources, how, seen = job.open_sources()
    how.features.mkdir(parents=True, exist_ok=True)
    readable = 0
    with Cluster(address) as cluster:
        for number, (name, images) in enumerate(sources):  # in turn: one finds the photos of those before
            chunks, done = chunks_of(len(images)), 0
            parts = Part(1, max(1, min(len(chunks), _PARTS * cluster.num_threads))).all()
            shares = [[chunks[place] for place in part.span(len(chunks))] for part in parts]
            for place, count in cluster.map(embed_into, [(job, seen, number, share) for share in shares]):
                readable += count
                done += sum(map(len, shares[place]))
                if progress:
                    progress(name, done, len(images))
    return readable


def embed_into(job: CleanJob, seen: str, number: int, chunks: Sequence[range]) -> int:
    """Embed some chunks of source ``number`` and keep the embeddings. Runs on a worker.

    Raises:
        ValueError: this machine sees other files than the one that gave ``seen``.
    """
    check_shared(Path(job.out), "images, model and result")
    sources, how = _opened(job, seen)
    name, images = sources[number]
    return embed_chunks(images, chunks, how, name)


@lru_cache(maxsize=1)
def _opened(job: CleanJob, seen: str) -> tuple[list[Source], Embedding]:
    """The sources and the network, kept by a worker for its next parts."""
    sources, how, here = job.open_sources()
    check_same(here, seen)
    return sources, how


def _open(
    data: Reader,
    model: str | Path,
    out: Path,
    against: Sequence[str],
    options: Options,
    progress: Progress | None,
) -> tuple[list[Source], Embedding]:
    tests, how = open_all(model, out, against, options, progress)
    return [(DATA, ReaderImages(data)), *((test.name, test.images) for test in tests)], how

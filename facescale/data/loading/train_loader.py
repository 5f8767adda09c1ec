"""Batches of decoded images: deterministic, sharded by process, resumable at any step."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facescale.arrays import IntArray, Pixels
from facescale.data.loading.augment import NUM_RANDOM
from facescale.data.loading.bad_records import BadRecords
from facescale.data.loading.batch import Batch
from facescale.data.loading.decode import decode_into
from facescale.data.loading.prefetch import BATCHES_AHEAD, Buffers, chunks, in_order
from facescale.data.readers.base import BadRecordError, Reader
from facescale.data.sampling.base import ImageSampler, Sampler, replacement, turns_of
from facescale.data.sampling.counter_rng import AUGMENT, REPLACE, hash64, uniform
from facescale.data.sampling.draws import turn_epoch

_MAX_REPLACEMENTS = 20  # draws for an unreadable item before the data is given up


@dataclass(frozen=True)
class _Job:
    """A batch in the making; workers fill ``images`` and correct ``index_VB`` where they replace an item."""

    epoch: int
    position_B: IntArray
    index_VB: IntArray
    images: Tensor


@dataclass(frozen=True)
class _Filled:
    """What a worker has to report.

    Attributes:
        items: how many it filled; fewer than asked for when the next one found no readable replacement.
        bad: (index, reason) of unreadable images.
    """

    items: int
    bad: list[tuple[int, str]]


class TrainLoader:
    """Training batches that depend on (seed, epoch, step) only.

    The items of an epoch stand in one order for all processes; global batch ``s`` is items ``s G`` to
    ``(s + 1) G`` with ``G = batch_size * world_size``, and process ``rank`` takes the ``rank``-th part of it.
    So the same global batches appear on any number of processes, and any step can be computed without those
    before it. The items after the last full global batch are left out.

    An unreadable item is replaced by another one, drawn by a hash of its position; each unreadable image is
    counted once and named in ``bad_log``.

    Args:
        reader: the images.
        batch_size: items per batch of this process.
        seed: of order, augmentation and replacements.
        rank: number of this process, below ``world_size``.
        world_size: number of processes.
        workers: decoding threads; no influence on the batches.
        size: height and width of the images, pixels.
        sampler: which images make an item; every image once per epoch if absent.
        resize: scale images of another size instead of treating them as unreadable.
        bad_log: file to which unreadable images are appended, one "key<TAB>reason" a line.
        max_bad_share: share of unreadable images that stops the run.

    Raises:
        ValueError: an argument out of its range, or fewer items than one global batch; while iterating, too
            many unreadable images.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        size: int = 112,
        sampler: Sampler | None = None,
        resize: bool = False,
        bad_log: str | Path | None = None,
        max_bad_share: float = 0.01,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0), ("size", size, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} of {world_size} processes; it must lie in 0..{world_size - 1}")
        self._reader = reader
        self._ids = reader.ids
        self.sampler = sampler or ImageSampler(len(reader), seed)
        self._seed = seed
        self._batch_size = batch_size
        self._global_batch = batch_size * world_size
        self._rank = rank
        self._workers = workers
        self._resize = resize
        num_items = len(self.sampler)
        self.steps_per_epoch = num_items // self._global_batch
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"the data has {num_items} items, fewer than one batch of {self._global_batch} over all"
                " processes; lower the batch size or add images"
            )
        shape = (self.sampler.views, batch_size, size, size, 3)
        self._buffers = Buffers(shape, pin=torch.cuda.is_available())
        self._bad = BadRecords(reader, bad_log, max_bad_share)

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from ``start_step`` on; what comes before is neither read nor decoded.

        Raises:
            ValueError: there is no such step; while iterating, too many unreadable images.
        """
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(f"start_step is {start_step}; an epoch has {self.steps_per_epoch} steps")
        return self._batches(epoch, start_step)

    def _batches(self, epoch: int, start_step: int) -> Generator[Batch, None, None]:
        jobs = (self._job(epoch, step) for step in range(start_step, self.steps_per_epoch))
        for job, reports in in_order(jobs, self._workers, BATCHES_AHEAD):
            filled = sum(report.items for report in reports)
            self._bad.add(filled * self.sampler.views, [one for report in reports for one in report.bad])
            if filled < self._batch_size:
                raise ValueError(
                    f"{_MAX_REPLACEMENTS + 1} items in a row were unreadable; see {self._bad.where} for the"
                    " reasons"
                )
            yield self._batch(job)

    def _job(self, epoch: int, step: int) -> tuple[_Job, list[Callable[[], _Filled]]]:
        start = step * self._global_batch + self._rank * self._batch_size
        position_B = np.arange(start, start + self._batch_size)
        job = _Job(epoch, position_B, self.sampler.indices(epoch, position_B), self._buffers.take())
        return job, [partial(self._fill, job, part) for part in chunks(self._batch_size)]

    def _batch(self, job: _Job) -> Batch:
        view_V1 = np.arange(self.sampler.views)[:, None]
        turn_B = turn_epoch(job.epoch, turns_of(self.sampler, job.epoch, job.position_B))
        random = uniform(NUM_RANDOM, AUGMENT, self._seed, turn_B, job.index_VB, view_V1)
        ids_VB = self._ids[job.index_VB]
        same_VVB = job.index_VB[:, None] == job.index_VB
        return Batch(
            images=job.images,
            ids=torch.from_numpy(ids_VB[0] if self.sampler.one_identity else ids_VB),
            index=torch.from_numpy(job.index_VB[0].copy()),
            epoch=job.epoch,
            random=torch.from_numpy(random),
            repeats=torch.from_numpy((same_VVB & (view_V1 > view_V1.T)[..., None]).any(axis=1)),
        )

    def _fill(self, job: _Job, items: range) -> _Filled:
        """Decode some items of a batch, on a worker thread."""
        bad: list[tuple[int, str]] = []
        images = job.images.numpy()
        for done, item in enumerate(items):
            attempt = 0
            while not self._decode(job.index_VB[:, item], images[:, item], bad):
                attempt += 1
                if attempt > _MAX_REPLACEMENTS:
                    return _Filled(done, bad)
                bits = hash64(REPLACE, self._seed, job.epoch, int(job.position_B[item]), attempt)
                position = replacement(self.sampler, job.position_B[item : item + 1], bits)
                job.index_VB[:, item] = self.sampler.indices(job.epoch, position)[:, 0]
        return _Filled(len(items), bad)

    def _decode(self, index_V: IntArray, out_VHW3: Pixels, bad: list[tuple[int, str]]) -> bool:
        for index, out in zip(index_V.tolist(), out_VHW3, strict=True):
            try:
                data, identity = self._reader[index]
                assert identity == self._ids[index], f"{self._reader.key(index)}: ids and [i] disagree"
                decode_into(out, data, resize=self._resize)
            except BadRecordError as error:
                bad.append((index, str(error)))
                return False
        return True

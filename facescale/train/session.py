"""What a training is made of: its run folder, loader, stop signals and batches."""

import json
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from facescale.config import Config, changed_keys, load_config
from facescale.data.identities import check_identities, write_identities
from facescale.data.loading.batch import Batch
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.readers.base import Reader
from facescale.data.sampling.multiview import make_sampler
from facescale.distributed import Dist
from facescale.files import write_atomically
from facescale.plan import Plan
from facescale.run import RunDir
from facescale.train.task import RecognitionTask

# Keys that may change between two sittings of one run: they do not change what is learned.
_FREE = (
    "checkpoint.",
    "eval.",
    "data.workers",
    "data.max_bad_share",
    "train.log_every",
    "train.max_bad_steps",
)


def make_loader(
    config: Config, plan: Plan, reader: Reader, task: RecognitionTask, run: RunDir
) -> TrainLoader:
    """The loader that gives the head what it needs: single images, several views or identity pairs."""
    needs, dist = task.head.needs, task.head.dist
    sampler = make_sampler(
        reader.ids,
        config.train.seed,
        keys=needs.key_views,
        identity_pairs=needs.identity_pairs,
        released=bool(config.head.options.get("compat")),
    )
    return TrainLoader(
        reader,
        sampler=sampler,
        batch_size=plan.process_batch,
        seed=config.train.seed,
        rank=dist.rank,
        world_size=dist.world_size,
        workers=config.data.workers,
        size=task.input_size,
        resize=config.data.resize,
        bad_log=run.bad_records,
        max_bad_share=config.data.max_bad_share,
    )


def open_run(
    config: Config, plan: Plan, reader: Reader, path: str | Path, dist: Dist, resume: bool
) -> RunDir:
    """Make the run folder, or check that the one there belongs to this config and these people.

    Raises:
        ValueError: the folder holds another run.
    """
    run = RunDir(path)
    if run.steps() and not resume:
        raise ValueError(f"the run {path} has checkpoints already; continue it, or use another --run folder")
    if run.config.is_file():
        changed = [key for key in changed_keys(load_config(run.config), config) if not key.startswith(_FREE)]
        if changed:
            raise ValueError(
                f"the run {path} was started with other values of {', '.join(changed)}; "
                "use another --run folder, or the same values to continue"
            )
    if run.steps() and run.identities.is_file():
        check_identities(run.identities, config, reader)
    dist.barrier()
    if dist.is_main:
        run.create()
        write_identities(run.identities, config, reader)
        write_atomically(run.config, config.to_toml())
        write_atomically(run.plan, json.dumps(plan.to_dict(), indent=1))
    dist.barrier()
    return run


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """While inside, SIGINT and SIGTERM only ask the loop to stop; a second one ends it at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python delivers signals to the main thread only
        return

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def timed_batches(loader: TrainLoader, plan: Plan, step: int) -> Generator[tuple[Batch, float], None, None]:
    """The batches from ``step`` to the end of the run, each with the seconds spent waiting for it."""
    while step < plan.total_steps:
        epoch, position = divmod(step, plan.steps_per_epoch)
        with closing(loader.epoch(epoch, position)) as batches:
            for _ in range(min(plan.steps_per_epoch - position, plan.total_steps - step)):
                before = monotonic()
                batch = next(batches)
                yield batch, monotonic() - before
                step += 1

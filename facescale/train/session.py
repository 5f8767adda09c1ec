"""What a training is made of: networks, optimizer, batches, counters, log; new or from a checkpoint."""

from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from safetensors import SafetensorError

from facescale.checksums import Checksums
from facescale.config import Config, EvalConfig, flat_values
from facescale.data import open_training_data
from facescale.data.digest import DataDigest, digest_of
from facescale.data.loading.batch import Batch
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.notes import data_notes
from facescale.data.readers.base import Reader, image_sources, passed_over
from facescale.data.readers.stream import StreamReader
from facescale.data.sampling.draws import make_draws
from facescale.data.sampling.multiview import make_sampler
from facescale.distributed import Dist, compare_ranks
from facescale.distributed.agreement import source_digest
from facescale.distributed.sharding import load_optimizer
from facescale.evaluate import Evaluator
from facescale.evaluate.protocols.open import open_protocol
from facescale.plan import Plan, make_plan
from facescale.plan.people import people
from facescale.run import RunDir
from facescale.train import checkpoint
from facescale.train.base import keep_base, take_base
from facescale.train.build import build_task, source_margins_of
from facescale.train.checkpoint import TrainState
from facescale.train.finetune import inherit
from facescale.train.meter import Meter
from facescale.train.notes import setting_notes
from facescale.train.open_run import changed_length, check_folder, keep_digest, open_run
from facescale.train.optim import Schedule, make_optimizer, make_schedule
from facescale.train.owner import Owner
from facescale.train.pretrained import check_network
from facescale.train.run_log import OnLog, RunLog
from facescale.train.saver import Saver
from facescale.train.task import RecognitionTask

# First factor of the loss in fp16 (from torch's own, 64 times that, most trainings lose six steps).
_LOSS_SCALE = 1024.0

# Keys that may differ between the processes of a training; the images themselves are compared.
_OF_HOST = ("data.train", "data.workers")


@dataclass(frozen=True)
class Session:
    """One sitting of a run, ready to train.

    Attributes:
        config: what the user wants.
        plan: what follows from it.
        dist: this process among its peers.
        reader: the images.
        run: the run folder.
        task: the networks.
        optimizer: of the backbone, and of the head's and margin's parameters.
        scaler: of the loss, in fp16.
        schedule: step -> learning rate.
        loader: the batches.
        protocols: evaluated during training.
        state: counters.
        meter: averages between log lines.
        log: writes a line of metrics.
        first_step: optimizer steps done before this sitting.
        owner: keeps other trainings out of the run folder.
        digest: of the images.
        saver: writes checkpoints.
    """

    config: Config
    plan: Plan
    dist: Dist
    reader: Reader
    run: RunDir
    task: RecognitionTask
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    loader: TrainLoader
    protocols: list[Evaluator]
    state: TrainState
    meter: Meter
    log: RunLog
    first_step: int
    owner: Owner
    digest: DataDigest
    saver: Saver

    def close(self) -> None:
        """Release the run folder, when nothing is written to it any more."""
        try:
            self.saver.close()
        finally:
            self.owner.close()


def open_session(
    config: Config,
    run_path: str | Path,
    dist: Dist,
    on_log: OnLog | None,
    resume: bool,
    rate_factor: float | None = None,
) -> Session:
    """Build everything, and continue from the newest checkpoint if there is one.

    Args:
        config: what to train.
        run_path: the run folder; created if absent.
        dist: this process among its peers.
        on_log: called on the main process with every line that goes to metrics.jsonl.
        resume: False refuses a folder that already has a checkpoint.
        rate_factor: on the learning rate from here on; None: as in the checkpoint.

    Raises:
        ValueError: config, data and run folder do not fit.
    """
    _same_program(config, dist)
    reader = people(config, open_training_data(config.data))
    plan = make_plan(config, dist, reader)
    check_network(config)
    check_folder(RunDir(run_path))
    digest = digest_of(reader)
    counts = {"the number of identities": reader.num_ids, "the number of images": len(reader)}
    compare_ranks(dist, {**counts, "the digest of the images": digest.text})
    with ExitStack() as undo:  # a training that cannot begin does not keep others out
        owner = undo.enter_context(closing(Owner(RunDir(run_path), dist)))
        lengthened = changed_length(RunDir(run_path), config, plan)
        run = open_run(config, plan, reader, digest, run_path, dist, resume)
        replaced = bool(run.steps() or config.train.init)
        task = build_task(config, plan, dist, run.centres, replaced)
        if config.head.margin.by_source:
            task.head.source_margins = source_margins_of(config, reader).to(dist.device)
        optimizer = make_optimizer(
            config.optim, task.backbone, task.head, layer_decay=config.finetune.layer_decay
        )
        scaler = torch.amp.GradScaler(dist.device.type, _LOSS_SCALE, enabled=plan.precision == "fp16")
        state, saved, started = TrainState(), dict[str, Any](), dict[str, Any]()
        checksums = Checksums()
        step, damages = checkpoint.newest_whole(run, dist, checksums)
        if step is not None:
            folder = run.snapshot(step)
            state, saved = checkpoint.load(folder, dist)
            take_base(task, run, folder)
            _restore(task, optimizer, scaler, saved, folder)
            started["new_length"] = lengthened
        elif config.train.init:
            started["known_identities"] = inherit(config, task, reader)
            keep_base(task, run)
        state.rate_factor = rate_factor or run.noted_rate(state.step) or state.rate_factor
        keep_digest(run, saved.get("data"), digest, dist)
        if dist.is_main:
            run.set_aside(after=state.step)
            damages += run.truncate_metrics(state.step)
        loader = make_loader(config, plan, reader, task, run)
        protocols = open_sets(config.eval, task.input_size, config.eval.flip)
        meter = Meter(dist.device)
        if state.window:
            meter.load_state(state.window)
        log = RunLog(run, plan, state, dist, on_log)
        singles = getattr(loader.sampler, "num_single", 0)
        started |= {"single_image_identities": singles, "passed_over": passed_over(reader)}
        started |= {"notes": [*setting_notes(config, plan), *data_notes(reader)] if dist.is_main else []}
        log("start", **plan.to_dict(), **started)
        for damage in damages:
            log("health", message=damage)
        undo.pop_all()
        return Session(
            *(config, plan, dist, reader, run, task, optimizer, scaler),
            schedule=make_schedule(
                config.optim, config.train.batch_size, plan.steps_per_epoch, plan.total_steps
            ),
            loader=loader,
            protocols=protocols,
            state=state,
            meter=meter,
            log=log,
            first_step=state.step,
            owner=owner,
            digest=digest,
            saver=Saver(run, dist, checksums, config.checkpoint.background),
        )


def open_sets(settings: EvalConfig, size: int, flip: bool) -> list[Evaluator]:
    """The protocols of a config, at most ``settings.limit`` of each.

    Args:
        settings: the section ``[eval]``.
        size: of the images, pixels.
        flip: add the mirrored view.

    Raises:
        ValueError: one cannot be read.
    """
    limit = settings.limit or None
    return [
        open_protocol(path, size, flip, settings.batch_size, name=name, limit=limit)
        for name, path in settings.sets.items()
    ]


def _same_program(config: Config, dist: Dist) -> None:
    """Refuse processes with another config or code; where the data lie may differ between hosts.

    Raises:
        ValueError: which process differs, in what.
    """
    values = {key: value for key, value in flat_values(config).items() if key not in _OF_HOST}
    compare_ranks(dist, {**values, "torch": torch.__version__, "facescale's code": source_digest()})


def _restore(
    task: RecognitionTask,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    saved: dict[str, Any],
    folder: Path,
) -> None:
    """Take over the state of a checkpoint.

    Raises:
        ValueError: it is not that of these networks.
    """
    try:
        task.load_state(saved["task"], folder)
        load_optimizer(optimizer, saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
    except (RuntimeError, LookupError, TypeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"checkpoint {folder} cannot be continued ({reason}); delete its folder to use the one before"
        ) from None


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
        released=needs.released_order,
        draws=make_draws(
            reader.ids,
            config.train.seed,
            sampling=config.data.sampling,
            group=config.data.images_per_identity,
            source_N=image_sources(reader),
            weights=config.data.weights,
            stream=(reader.first_S, reader.window) if isinstance(reader, StreamReader) else None,
        ),
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

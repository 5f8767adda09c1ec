"""The training loop: one flat function."""

import json
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from facescale.config import Config
from facescale.data import open_reader
from facescale.distributed import Dist, pick_device
from facescale.evaluate.protocols.open import open_protocol
from facescale.files import write_atomically
from facescale.plan import Plan, make_plan
from facescale.run import RunDir
from facescale.train import checkpoint
from facescale.train.checkpoint import TrainState
from facescale.train.finetune import inherit
from facescale.train.meter import Meter
from facescale.train.optim import make_optimizer, make_schedule
from facescale.train.session import make_loader, open_run, stop_signals, timed_batches
from facescale.train.task import RecognitionTask
from facescale.train.tensorboard import open_board
from facescale.train.watchdog import diagnose

# First factor of the loss in fp16 (from torch's own, 64 times that, most trainings lose six steps).
_LOSS_SCALE = 1024.0


class TrainingError(RuntimeError):
    """The training cannot go on; the message says why and what to do. The last checkpoint stays usable."""


@dataclass(frozen=True)
class Result:
    """What a call of ``train`` did.

    Attributes:
        run: the run folder.
        step: optimiser steps done.
        finished: False when a signal ended it early.
        metrics: the last evaluation, NAME/METRIC -> value.
    """

    run: RunDir
    step: int
    finished: bool
    metrics: dict[str, float]


def train(
    config: Config,
    run_path: str | Path,
    dist: Dist | None = None,
    on_log: Callable[[dict[str, Any], Plan], None] | None = None,
    resume: bool = True,
) -> Result:
    """Train a run, or continue it from its newest checkpoint.

    Args:
        config: what to train.
        run_path: the run folder; created if absent.
        dist: this process among its peers.
        on_log: called on the main process with every line that goes to metrics.jsonl.
        resume: False refuses a folder that already has a checkpoint.

    Raises:
        ValueError: config, data and run folder do not fit.
        TrainingError: too many non-finite steps in a row.
    """
    dist = dist or Dist(device=pick_device())
    reader = open_reader(config.data.train, min_images=config.data.min_images)
    plan = make_plan(config, dist, reader)
    run = open_run(config, plan, reader, run_path, dist, resume)
    task = RecognitionTask(config, plan, dist, run.centres)
    optimizer = make_optimizer(config.optim, task.backbone, task.head)
    scaler = torch.amp.GradScaler(dist.device.type, _LOSS_SCALE, enabled=plan.precision == "fp16")
    schedule = make_schedule(config.optim, config.train.batch_size, plan.steps_per_epoch, plan.total_steps)
    state, metrics, started = TrainState(), dict[str, float](), dict[str, Any]()
    if run.steps():
        folder = run.snapshot(run.steps()[-1])
        state, saved = checkpoint.load(folder, dist)
        task.load_state(saved["task"], folder)
        optimizer.load_state_dict(saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
    elif config.train.init:
        started["known_identities"] = inherit(config, task, reader)
    if dist.is_main:
        run.truncate_metrics(state.step)
    loader = make_loader(config, plan, reader, task, run)
    protocols = [
        open_protocol(path, task.input_size, config.eval.flip, config.eval.batch_size, name=name)
        for name, path in config.eval.sets.items()
    ]
    meter = Meter(dist.device)
    board = open_board(run.board) if dist.is_main else None

    def log(kind: str, **values: Any) -> None:
        line = {"kind": kind, "step": state.step, **values}
        if board:
            run.log(**line)
            board(line)
            if on_log:
                on_log(line, plan)

    singles = getattr(loader.sampler, "num_single", 0)
    log("start", **plan.to_dict(), **started, single_image_identities=singles)
    task.train()
    stopping, warning = False, None
    with stop_signals() as stop_asked, closing(timed_batches(loader, plan, state.step)) as batches:
        for batch, waited in batches:
            lr = schedule(state.step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            task.head.margin.strength = (
                min(1.0, (state.step + 1) / plan.ramp_steps) if plan.ramp_steps else 1.0
            )
            task.head.loss_scale = scaler.get_scale()
            task.begin_step(state.step / plan.total_steps)
            loss = torch.zeros((), device=dist.device)
            for part in batch.split(plan.part_batch):
                out = task(part)
                scaler.scale(out.loss / config.train.accumulate).backward()
                loss += out.loss.detach() / config.train.accumulate
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(
                task.backbone.parameters(), config.train.clip_norm or math.inf
            )
            # The one wait for the device in a step: no process may take a step that is not finite on another.
            flags = torch.stack([~(loss + norm).isfinite(), torch.tensor(stop_asked(), device=dist.device)])
            bad, stopping = (x > 0 for x in dist.all_reduce(flags.float(), "max").tolist())
            if bad:
                task.skip_step()
                state.bad_steps += 1
                state.bad_in_a_row += 1
            else:
                scaler.step(optimizer)
                task.after_step(lr)
                state.bad_in_a_row = 0
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            meter.add(None if bad else loss, config.train.batch_size, waited)

            if bad:
                keys = [reader.key(i) for i in batch.index[:4].tolist()]
                log("bad_step", lr=lr, loss=str(float(loss)), grad_norm=str(float(norm)), first_images=keys)
            if state.bad_in_a_row >= config.train.max_bad_steps:
                raise TrainingError(
                    f"{state.bad_in_a_row} steps in a row not finite, up to step {state.step}, lr {lr:.3g}: "
                    "lower optim.lr, lengthen optim.warmup, or use train.precision=fp32 in a new run"
                )
            done = state.step == plan.total_steps
            if state.step % config.train.log_every == 0 or done or stopping:
                line = meter.flush()
                state.seconds += line.pop("seconds")
                line |= {key: round(float(value), 5) for key, value in out.stats.items()}
                epoch = round(state.step / plan.steps_per_epoch, 3)
                log("train", epoch=epoch, lr=lr, grad_norm=round(float(norm), 5), **line)
                warning, warned = diagnose(line, plan.num_ids, state.step / plan.total_steps), warning
                if warning and warned is None:  # once, until it looks well again
                    log("health", message=warning)
            evaluating = protocols and not stopping and (state.step % plan.eval_steps == 0 or done)
            if evaluating:
                results = [one.measure(task.embed) for one in protocols] if dist.is_main else []
                task.remember(results)
                metrics = {f"{one.name}/{key}": value for one in results for key, value in one.figures()}
                log("eval", **metrics)
                if dist.is_main:
                    file = run.evaluations / f"step_{state.step:08d}.json"
                    write_atomically(file, json.dumps([one.to_dict() for one in results], indent=1))
            if evaluating or done or stopping or state.step % plan.checkpoint_steps == 0:
                tensors = {
                    "task": task.state(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
                }
                checkpoint.save(run, dist, state, tensors, task.write_model, task.head.save_rows)
                if dist.is_main:
                    run.keep_best(state.step, metrics if evaluating else {})
                    run.prune(config.checkpoint.keep)
                meter.flush()  # evaluating and saving is not training time
            if stopping:
                break
    return Result(run, state.step, state.step >= plan.total_steps, metrics)

"""The training loop: one function that reads from top to bottom.

    facescale train --run runs/first                            the embedded default, on synthetic faces
    facescale train NAME --run runs/NAME           a recipe; the same command continues it
    facescale train NAME --run runs/NAME --processes 8

One step reads in: this file, task.py, heads/centre_head.py (or another head), heads/chunked_softmax.py,
centres/store.py, ops.py.
"""

import math
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import torch
from torch import Tensor

from facescale.config import Config
from facescale.data.loading.batch import Batch
from facescale.distributed import Dist, pick_device
from facescale.distributed.sharding import clip_grad_norm
from facescale.ops import to_device
from facescale.plan.check import read_config
from facescale.run import RunDir
from facescale.train.milestones import (
    evaluate,
    evaluates_at,
    last_figures,
    owes_evaluation,
    save,
    saves_at,
)
from facescale.train.roll_back import report, roll_back
from facescale.train.run_log import OnLog
from facescale.train.session import Session, open_session, timed_batches
from facescale.train.signals import stop_signals
from facescale.train.task import StepOutput
from facescale.train.watchdog import ADVICE, TrainingError, diagnose


class _End(Enum):
    """How a sitting ended."""

    FINISHED = auto()
    STOPPED = auto()
    DIVERGED = auto()


@dataclass(frozen=True)
class Result:
    """What a call of ``train`` did.

    Attributes:
        run: the run folder.
        step: optimizer steps done.
        finished: False when a signal ended it early.
        metrics: the last evaluation, NAME/METRIC -> value.
    """

    run: RunDir
    step: int
    finished: bool
    metrics: dict[str, float]


def train(
    config: Config | None,
    run_path: str | Path,
    dist: Dist | None = None,
    on_log: OnLog | None = None,
    resume: bool = True,
) -> Result:
    """Train a run, or continue it from its newest checkpoint.

    Args:
        config: what to train; None continues the run with its own.
        run_path: the run folder; created if absent.
        dist: this process among its peers.
        on_log: called on the main process with every line that goes to metrics.jsonl.
        resume: False refuses a folder that already has a checkpoint.

    Raises:
        ValueError: config, data and run folder do not fit.
        TrainingError: too many non-finite steps in a row.
    """
    dist = dist or Dist(device=pick_device())
    config = config or read_config(RunDir.open(run_path).config)
    session = open_session(config, run_path, dist, on_log, resume)
    while (end := _train(session)) is _End.DIVERGED:
        diverged_at, rate_factor = session.state.step, roll_back(session)
        del session  # before another one takes as much memory
        session = open_session(config, run_path, dist, on_log, True, rate_factor)
        report(session, diverged_at)
    run, figures = session.run, last_figures(session.run) if dist.is_main else {}
    return Result(run, session.state.step, end is _End.FINISHED, figures)


def _train(session: Session) -> _End:
    """Train until the end of the run, a stop signal, or a divergence that the run goes back from.

    Raises:
        TrainingError: too many non-finite steps in a row.
    """
    # ---- Set up -------------------------------------------------------------------------------------------
    config, dist, plan, task, state = session.config, session.dist, session.plan, session.task, session.state
    optimizer, scaler, meter = session.optimizer, session.scaler, session.meter
    batches = timed_batches(session.loader, plan, state.step)
    task.train()
    stopping = False
    with closing(session), stop_signals() as stop_asked, closing(batches):
        if owes_evaluation(session):
            with meter.paused():
                stopping = not evaluate(session, stop_asked)
        for batch, waited in () if stopping else batches:
            # ---- Rate and ramps ---------------------------------------------------------------------------
            lr = session.schedule(state.step) * state.rate_factor
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            strength = min(1.0, (state.step + 1) / plan.ramp_steps) if plan.ramp_steps else 1.0
            # fp16 only: reading the loss's factor waits for the device
            task.begin_step(state.step / plan.total_steps, strength, loss_scale=scaler.get_scale())

            if state.step == session.first_step:
                session.log.show_batch(task, batch)

            # ---- Forward and backward, one part of the batch after the other ------------------------------
            dist.note("forward and backward", state.step)
            outputs = []
            parts = list(batch.split(plan.part_batch))
            for number, part in enumerate(parts, start=1):
                with task.gradients_exchanged(number == len(parts)):
                    output = task(part)
                    scaler.scale(output.loss / config.train.accumulate).backward()
                outputs.append(output.detach())
            output = StepOutput.mean(outputs)
            scaler.unscale_(optimizer)
            grad_norm = clip_grad_norm(task.backbone.parameters(), config.train.clip_norm or math.inf, dist)

            # ---- Agreement: no process may take a step that is not finite on another, or stop alone -------
            finite = (output.loss + grad_norm).isfinite() & task.is_finite()
            (asked,) = to_device(dist.device, torch.tensor([stop_asked(), session.saver.writing]))
            flags = torch.cat([~finite[None], asked])
            # .tolist() is the one wait for the device in every step
            bad, stopping, writing = (flag > 0 for flag in dist.all_reduce(flags.float(), "max").tolist())
            session.saver.poll(writing)

            # ---- Update -----------------------------------------------------------------------------------
            if bad:
                task.skip_step()
            else:
                scaler.step(optimizer)
                task.after_step(lr)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            state.count_step(bad)
            done = state.step == plan.total_steps
            if state.step == session.first_step + 1:
                dist.shorten_timeout()

            # ---- Log (its figures wait for the device) ----------------------------------------------------
            meter.add(None if bad else output.loss, config.train.batch_size, waited)
            if bad:
                _log_bad_step(session, batch, output.loss, grad_norm, lr)
            if state.bad_in_a_row >= (config.train.roll_back_after or config.train.max_bad_steps):
                session.saver.finish()
                if config.train.roll_back_after:
                    return _End.DIVERGED
                raise TrainingError(
                    f"{state.bad_in_a_row} steps in a row not finite, up to step {state.step}, lr {lr:.3g}: "
                    f"{ADVICE}"
                )
            if state.step % config.train.log_every == 0 or done:
                _log_progress(session, output, grad_norm, lr)

            # ---- Checkpoint, evaluate: neither is training time -------------------------------------------
            evaluating = session.protocols and not stopping and evaluates_at(plan, state.step)
            if evaluating or stopping or saves_at(plan, state.step):
                with meter.paused():
                    sound = save(session)
                    if evaluating and sound:
                        stopping = not evaluate(session, stop_asked)
                if not sound and config.train.roll_back_after:
                    session.saver.finish()
                    return _End.DIVERGED
                if not sound and done:
                    raise TrainingError(f"the weights are not finite at the end, step {state.step}: {ADVICE}")
            dist.note("waiting for its batch", state.step)
            if stopping:  # an evaluation that is due now is made up for by the next sitting
                break
        session.saver.finish()
    return _End.STOPPED if stopping else _End.FINISHED


def _log_bad_step(session: Session, batch: Batch, loss: Tensor, grad_norm: Tensor, lr: float) -> None:
    keys = [session.reader.key(i) for i in batch.index[:4].tolist()]
    figures = {"loss": str(float(loss)), "grad_norm": str(float(grad_norm))}
    session.log("bad_step", lr=lr, **figures, first_images=keys)


def _log_progress(session: Session, output: StepOutput, grad_norm: Tensor, lr: float) -> None:
    """Figures since the last such line, and a sentence where they look wrong."""
    plan, state, log = session.plan, session.state, session.log
    line = session.meter.flush()
    state.seconds += line.pop("seconds")
    line |= {key: round(float(value), 5) for key, value in output.stats.items()}
    epoch = round(state.step / plan.steps_per_epoch, 3)
    log("train", epoch=epoch, lr=lr, grad_norm=round(float(grad_norm), 5), **line)
    message = diagnose(line, plan.num_ids, state.step / plan.total_steps)
    if message and not state.warned:  # once, until it looks well again
        log("health", message=message)
    state.warned = message is not None

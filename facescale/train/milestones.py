"""Evaluation and checkpoint: when they are due, and what they leave in the run folder."""

import json
from functools import partial

from facescale.files import write_atomically
from facescale.plan import Plan
from facescale.run import RunDir
from facescale.train.saver import Content
from facescale.train.session import Session
from facescale.train.tensors import num_bytes


def evaluates_at(plan: Plan, step: int) -> bool:
    """Whether the run is evaluated after ``step`` optimizer steps."""
    return step > 0 and (step % plan.eval_steps == 0 or step == plan.total_steps)


def saves_at(plan: Plan, step: int) -> bool:
    """Whether a checkpoint is due after ``step`` optimizer steps, evaluated or not."""
    return step % plan.checkpoint_steps == 0 or step == plan.total_steps


def owes_evaluation(session: Session) -> bool:
    """Whether the last sitting was stopped before an evaluation that was due; the same on all processes."""
    run, state = session.run, session.state
    if not session.protocols or not evaluates_at(session.plan, state.step):
        return False
    done = session.dist.is_main and any(row.get("step") == state.step for row in run.read_metrics("eval"))
    return not session.dist.any(done)


def evaluate(session: Session) -> dict[str, float]:
    """Measure the protocols on the main process: thresholds for the task, the result as ``eval/step_N.json``.

    Returns:
        The figures, NAME/METRIC -> value; nothing on other processes.
    """
    if not session.dist.is_main:
        return {}
    results = [protocol.measure(session.task.embed) for protocol in session.protocols]
    session.task.keep_thresholds(results)
    file = session.run.evaluations / f"step_{session.state.step:08d}.json"
    write_atomically(file, json.dumps([result.to_dict() for result in results], indent=1))
    return {f"{result.name}/{key}": value for result in results for key, value in result.figures()}


def save(session: Session, figures: dict[str, float]) -> None:
    """Write the checkpoint of this step with the ``figures`` of its evaluation, and delete older ones.

    Or begin to, with ``checkpoint.background``: what follows from it is done when it has its name.

    Raises:
        NoSpaceError: the disk is full.
    """
    run, task, state = session.run, session.task, session.state
    tensors = {
        "task": task.state(),
        "optimizer": session.optimizer.state_dict(),
        "scaler": session.scaler.state_dict(),
    }
    state.window = session.meter.state()
    size = num_bytes(tensors) + num_bytes(task.evaluated.state_dict())
    content = Content(state, tensors, task.model_to_save, task.head.rows_to_save, size)
    there = run.snapshot(state.step).exists()
    if figures and not there:  # a run that is killed before the checkpoint has its name writes it again
        session.log("eval", **figures)
    session.saver.save(content, partial(_follow_up, session, state.step, figures))
    if figures and there:  # last of all: a run that is killed before this line evaluates again
        session.log("eval", **figures)


def _follow_up(session: Session, step: int, figures: dict[str, float]) -> None:
    """After the checkpoint of ``step`` has its name: is it the best, and which older ones go."""
    run, plan = session.run, session.plan
    if not session.dist.is_main:
        return
    run.keep_best(step, figures, session.config.checkpoint.best_by)
    # The one that this sitting began with goes first, if only a stop asked for it.
    first = session.first_step
    regular = saves_at(plan, first) or (session.protocols and evaluates_at(plan, first))
    run.prune(session.config.checkpoint.keep, interim=None if regular else first)


def catch_up(session: Session) -> None:
    """Do what a kill right after a checkpoint left undone: an evaluation, the note of the best one."""
    if owes_evaluation(session):
        with session.meter.paused():
            save(session, evaluate(session))
    elif session.dist.is_main:
        rows = [row for row in session.run.read_metrics("eval") if row.get("step") == session.state.step]
        figures = {key: value for key, value in rows[-1].items() if "/" in key} if rows else {}
        if session.state.step in session.run.steps():
            session.run.keep_best(session.state.step, figures, session.config.checkpoint.best_by)


def last_figures(run: RunDir) -> dict[str, float]:
    """Figures of the run's last evaluation, NAME/METRIC -> value."""
    rows = run.read_metrics("eval")
    return {key: value for key, value in rows[-1].items() if "/" in key} if rows else {}

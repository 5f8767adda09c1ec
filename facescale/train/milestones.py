"""Evaluation and checkpoint: when they are due, and what they leave in the run folder."""

from collections.abc import Callable, Mapping
from functools import partial

from facescale.backbones.low_rank import own_state
from facescale.distributed.agreement import compare_ranks, weights_checksum
from facescale.distributed.sharding import is_sharded, whole
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.records import MeasuredModel, Record, write_record
from facescale.evaluate.shares import EvaluationStoppedError
from facescale.evaluate.verification_result import VerificationResult
from facescale.plan import Plan
from facescale.run import RunDir
from facescale.train.roll_back import last_good
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


def evaluate(session: Session, stop_asked: Callable[[], bool]) -> bool:
    """Measure the protocols on all processes, and add the result to the checkpoint of this step.

    The checkpoint is there already: whoever is stopped in a long evaluation loses nothing, and the next
    sitting makes up for it. Thresholds go into its weights, figures to ``results/`` and the log.

    Args:
        session: the training.
        stop_asked: whether to end between two batches; one process that is asked stops all.

    Returns:
        Whether it was finished; the same on all processes.
    """
    task, dist, step = session.task, session.dist, session.state.step
    how = Extraction(dist=dist, stop_asked=stop_asked)
    try:
        with task.ready_for_evaluation():
            results = [one.measure(task.embed, how) for one in session.protocols]
    except EvaluationStoppedError:
        return False
    task.keep_thresholds(results)
    fingerprint = task.fingerprint()
    if dist.is_main:
        model = MeasuredModel.of(task.card, fingerprint, session.run.snapshot(step).name, step)
        for result in results:
            write_record(session.run.results, Record.of(result, model))
    figures = {f"{result.name}/{key}": value for result in results for key, value in result.figures()}
    warnings = [one.dead for one in results if isinstance(one, VerificationResult) and one.dead]
    for warning in warnings:
        session.log("health", message=warning)
    save(session, figures, dead=bool(warnings))
    return True


def save(session: Session, figures: Mapping[str, float] | None = None, dead: bool = False) -> bool:
    """Write the checkpoint of this step, or the ``figures`` of its evaluation to it; delete older ones.

    With ``checkpoint.background`` a new one is only begun; older ones are deleted when it has its name.
    Weights that are not finite, or of no use, are not saved: the checkpoints before stay.

    Args:
        session: the training.
        figures: NAME/METRIC -> value.
        dead: the network gives all images the same embedding, so any other checkpoint is better.

    Returns:
        Whether there is a checkpoint of this step, or will be.

    Raises:
        NoSpaceError: the disk is full.
    """
    task, state = session.task, session.state
    if figures is None and session.dist.any(not task.is_sound()):
        good = last_good(session)
        kept = f"the last good one is of step {good}" if good else "there is none yet"
        message = f"the weights or embeddings are no longer finite, so no checkpoint is written; {kept}"
        if state.bad_in_a_row <= session.plan.checkpoint_steps:  # once or twice, not at every checkpoint
            session.log("health", message=message)
        return False
    copies = session.dist.world_size > 1 and not is_sharded(task.backbone)  # which must be the same
    weights = weights_checksum(task.backbone) if copies else 0
    compare_ranks(session.dist, {"the step": state.step, "the weights of the backbone": weights})
    tensors = {
        "task": task.state(),
        "optimizer": whole(session.optimizer.state_dict(), session.dist),
        "scaler": session.scaler.state_dict(),
        "data": session.digest.text,
    }
    state.window = session.meter.state()
    size = num_bytes(tensors) + num_bytes(own_state(task.evaluated))
    content = Content(state, tensors, task.model_to_save(), task.head.rows_to_save, size)
    session.saver.save(content, partial(_follow_up, session, state.step, figures or {}, dead))
    if figures:  # last of all: a run that is killed before this line evaluates again
        session.log("eval", **figures)
    return True


def _follow_up(session: Session, step: int, figures: Mapping[str, float], dead: bool) -> None:
    """After the checkpoint of ``step`` has its name: is it the best, and which older ones go."""
    run, plan = session.run, session.plan
    if not session.dist.is_main:
        return
    run.keep_best(step, figures, session.config.checkpoint.best_by, dead)
    # The one that this sitting began with goes first, if only a stop asked for it.
    first = session.first_step
    regular = saves_at(plan, first) or (session.protocols and evaluates_at(plan, first))
    good = last_good(session) if session.state.bad_in_a_row else None
    run.prune(session.config.checkpoint.keep, interim=None if regular else first, good=good)


def last_figures(run: RunDir) -> dict[str, float]:
    """Figures of the run's last evaluation, NAME/METRIC -> value."""
    rows = run.read_metrics("eval")
    return {key: value for key, value in rows[-1].items() if "/" in key} if rows else {}

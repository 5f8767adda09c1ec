"""Evaluation and checkpoint: when they are due, and what they leave in the run folder."""

from facescale.evaluate.records import MeasuredModel, Record, write_record
from facescale.inference.model import weights_fingerprint
from facescale.plan import Plan
from facescale.run import RunDir
from facescale.train import checkpoint
from facescale.train.session import Session


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
    done = session.dist.is_main and any(row["step"] == state.step for row in run.read_metrics("eval"))
    return not session.dist.any(done)


def evaluate(session: Session) -> dict[str, float]:
    """Measure the protocols on the main process: thresholds for the task, a record of each.

    Returns:
        The figures, NAME/METRIC -> value; nothing on other processes.
    """
    if not session.dist.is_main:
        return {}
    results = [protocol.measure(session.task.embed) for protocol in session.protocols]
    session.task.keep_thresholds(results)
    task, step = session.task, session.state.step
    fingerprint = weights_fingerprint(task.evaluated.state_dict(), task.card.contract)
    model = MeasuredModel.of(task.card, fingerprint, session.run.snapshot(step).name, step)
    for result in results:
        write_record(session.run.results, Record.of(result, model))
    return {f"{result.name}/{key}": value for result in results for key, value in result.figures()}


def save(session: Session, figures: dict[str, float]) -> None:
    """Write the checkpoint of this step with the ``figures`` of its evaluation, and delete older ones."""
    run, task, plan, state = session.run, session.task, session.plan, session.state
    tensors = {
        "task": task.state(),
        "optimizer": session.optimizer.state_dict(),
        "scaler": session.scaler.state_dict(),
    }
    state.window = session.meter.state()
    checkpoint.save(run, session.dist, state, tensors, task.write_model, task.head.save_rows)
    if session.dist.is_main:
        run.keep_best(state.step, figures, session.config.checkpoint.best_by)
        # The one that this sitting began with goes first, if only a stop asked for it.
        first = session.first_step
        regular = saves_at(plan, first) or (session.protocols and evaluates_at(plan, first))
        run.prune(session.config.checkpoint.keep, interim=None if regular else first)
        if figures:  # last of all: a run that is killed before this line evaluates again
            session.log("eval", **figures)


def last_figures(run: RunDir) -> dict[str, float]:
    """Figures of the run's last evaluation, NAME/METRIC -> value."""
    rows = run.read_metrics("eval")
    return {key: value for key, value in rows[-1].items() if "/" in key} if rows else {}

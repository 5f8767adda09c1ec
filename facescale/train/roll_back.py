"""Go back to the last good checkpoint of a training that diverged, to train on with a lower rate.

Going back is what a resume does, so it is as exact: networks, optimizer, random state and data order are
those of the checkpoint; the rate alone is another one, from there to the end of the run.
"""

from facescale.train.session import Session
from facescale.train.watchdog import TrainingError

_LEAST = 1e-3  # factor on the learning rate below which nothing is gained by a lower one


def last_good(session: Session) -> int:
    """Step of the newest checkpoint whose weights gave a finite step; 0 if there is none.

    The step that spoils the weights is finite itself, so a checkpoint counts as good if a finite step came
    after it.
    """
    state = session.state
    proven = state.step - state.bad_in_a_row - 1
    return max((step for step in session.run.steps() if step <= proven), default=0)


def roll_back(session: Session) -> float:
    """Leave the last good checkpoint as the newest one; all processes call.

    Returns:
        The factor on the learning rate to train on with.

    Raises:
        TrainingError: the rate is a thousandth of what it was, and the training still diverges.
    """
    session.saver.finish()
    good, factor = last_good(session), session.state.rate_factor * session.config.train.roll_back_rate
    if factor < _LEAST:
        raise TrainingError(
            f"the training diverges after step {good} even at {session.state.rate_factor:.3g} times its "
            "learning rate: check the labels and images, or use train.precision=fp32 in a new run"
        )
    if session.dist.is_main:
        if good:  # for the case that this process is killed before the next checkpoint
            session.run.note_rate(good, factor)
        session.run.set_aside(after=good)
    session.dist.barrier()
    return factor


def report(session: Session, diverged_at: int) -> None:
    """Log that a training which diverged after step ``diverged_at`` goes on from here."""
    session.log(
        "roll_back",
        diverged_at=diverged_at,
        rate_factor=session.state.rate_factor,
        message=f"diverged at step {diverged_at}; going on from step {session.state.step} with "
        f"{session.state.rate_factor:.3g} times the scheduled learning rate",
    )

"""One process group at a time trains a run: a lock on its folder, which the system releases after a kill."""

from filelock import FileLock, Timeout

from facescale.distributed import Dist
from facescale.run import RunDir


class Owner:
    """Holds a run folder until it is closed; all processes of the group create one.

    Two trainings of one run would write the same rows on disk and delete each other's checkpoints.

    Raises:
        ValueError: another training holds the folder.
    """

    def __init__(self, run: RunDir, dist: Dist) -> None:
        self._lock = FileLock(run.lock, timeout=0)
        taken = False
        if dist.is_main:
            run.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                taken = True
        if dist.any(taken):
            raise ValueError(
                f"another process is training the run {run.path} now; wait until it ends, stop it, or use "
                "another --run folder"
            )

    def close(self) -> None:
        """Let others train the run."""
        self._lock.release()

"""Tasks on a Dask cluster; a task whose worker is lost runs again on another."""

import platform
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from facescale.guard.reading import is_sentence, reason

_PATIENCE = 60  # seconds until a scheduler has answered, and until it has a worker
_AHEAD = 4  # tasks sent for each thread of a worker

T = TypeVar("T")


def check_shared(folder: Path, what: str) -> None:
    """Called on a worker: raise if a folder of the work is missing there.

    Args:
        folder: made by whoever sent the work.
        what: all that must lie on a shared file system, for the message.

    Raises:
        ValueError: it is missing.
    """
    if not folder.is_dir():
        raise ValueError(
            f"'{folder}' is missing on the worker {platform.node()}; {what} must lie on a file system that"
            " all workers share"
        )


def check_same(here: str, sent: str) -> None:
    """Called on a worker: raise if it finds other files than whoever sent the work.

    Args:
        here: a text that stands for the model and the images that the worker finds.
        sent: the same of the sender.

    Raises:
        ValueError: they differ.
    """
    if here != sent:
        raise ValueError(
            f"the worker {platform.node()} finds another model or other images under the same names; all"
            " workers must share one file system"
        )


class Cluster:
    """A running Dask cluster, whose workers have facescale installed.

    Args:
        address: of its scheduler, such as ``tcp://node1:8786``.
        patience: seconds until it must have answered.

    Raises:
        ValueError: Dask is not installed, nobody answers at the address, or the scheduler has no worker.
    """

    def __init__(self, address: str, patience: float = _PATIENCE) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ValueError(
                "a cluster needs Dask; install it with: pip install 'facescale[cluster]', here and on its"
                " workers"
            ) from None
        try:
            self._client: Any = Client(address, timeout=patience, set_as_default=False)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise ValueError(
                f"cannot reach a Dask scheduler at '{address}' ({reason(error)}); start one with:"
                " dask scheduler, and give the address that it prints"
            ) from None
        try:
            self._client.wait_for_workers(1, timeout=patience)
        except OSError:
            self._client.close()
            raise ValueError(
                f"the Dask scheduler at '{address}' has no worker; start some with: dask worker {address}"
                " --nworkers 8 --nthreads 1"
            ) from None

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def num_threads(self) -> int:
        """Tasks that it works on at a time."""
        return max(1, int(sum(self._client.nthreads().values())))

    def map(
        self, function: Callable[..., T], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, T]]:
        """Call ``function`` on the workers, once for each of ``arguments``.

        Yields:
            (place in ``arguments``, result), as they end.

        Raises:
            ValueError: raised by ``function`` for the user.
            RuntimeError: a worker failed otherwise, or several died over one task.
        """
        from distributed import as_completed

        places: dict[Any, int] = {}
        ended: Any = as_completed(loop=self._client.loop)
        waiting = iter(enumerate(arguments))

        def send(count: int) -> None:
            for place, values in islice(waiting, count):
                future = self._client.submit(function, *values, pure=False)
                places[future] = place
                ended.add(future)

        send(_AHEAD * self.num_threads)
        try:
            for future in ended:
                place = places.pop(future)
                yield place, self._result(future, place)
                future.release()
                send(1)
        finally:
            self._client.cancel(list(places))

    @staticmethod
    def _result(future: Any, place: int) -> Any:
        try:
            return future.result()
        except Exception as error:  # whatever the task or Dask raised
            if is_sentence(error) or type(error) is ValueError:
                raise
            raise RuntimeError(
                f"part {place + 1} failed on the cluster: {type(error).__name__}: {reason(error)}; the same"
                " command continues from there"
            ) from error

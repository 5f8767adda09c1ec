"""What processes tell each other beside their collectives: that they live, what they do, why they left.

A collective that fails says that a connection was closed or that time ran out, not whose fault it was. Every
process therefore writes a sign of life to the store of the group once a second, from a thread of its own.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from torch.distributed import DistStoreError
from torch.distributed.distributed_c10d import Store

BEAT = 1.0  # seconds between signs of life
WATCHED = 2.5 * BEAT  # a living process gives a sign within this time
ANSWER = 10.0  # seconds that the store may take for an answer
_T = TypeVar("_T")


class PeerError(RuntimeError):
    """Another process of the group failed, stopped or was cut off; the message says which and where."""


@dataclass
class Place:
    """Where a process is: written by the training, read by the sign of life.

    Attributes:
        step: optimizer steps done.
        doing: what it does, or the last collective.
    """

    step: int = 0
    doing: str = "start"


class Peers:
    """Signs of life of all processes of a group.

    Args:
        connect: a new connection to the store of the group.
        rank: of this process.
        world_size: number of processes.
        timeout_s: longest silence of a process that others wait for.
        server: who serves the store, for messages.

    Attributes:
        place: of this process.
        timeout_s: as above.
    """

    def __init__(
        self, connect: Callable[[], Store], rank: int, world_size: int, timeout_s: float, server: str
    ) -> None:
        self.place = Place()
        self._rank, self._world_size, self.timeout_s = rank, world_size, timeout_s
        self._server = server
        self._store, self._own = connect(), connect()
        self._self = {"host": socket.gethostname(), "pid": os.getpid()}
        self._count, self._meetings = 0, 0
        self._changed: dict[int, tuple[str, float]] = {}
        self._closing = threading.Event()
        self._beat(self._store)
        self._thread = threading.Thread(target=self._beats, name="signs of life", daemon=True)
        self._thread.start()

    def meet(self) -> None:
        """Wait until all processes are here, as long as the others live.

        Raises:
            PeerError: one of them left, or has been silent for too long.
        """
        try:
            self._meet()
        except PeerError:
            raise
        except RuntimeError:  # the store
            raise PeerError(self.explain("waiting for the others")) from None

    def _meet(self) -> None:
        self._meetings += 1
        arrived, go = f"meet/{self._meetings}", f"go/{self._meetings}"
        if self._ask(lambda: self._store.add(arrived, 1)) == self._world_size:
            self._ask(lambda: self._store.set(go, "1"))
            with contextlib.suppress(RuntimeError):  # the last meeting: the store may go with another process
                for old in (f"meet/{self._meetings - 1}", f"go/{self._meetings - 1}"):
                    self._ask(lambda old=old: self._store.delete_key(old))  # type: ignore[misc]
            return
        interval = max(BEAT, self._world_size / 50)  # of many processes, not all must ask all the time
        while not self._ask(lambda: self._came(go, interval)):
            self._require_life()

    def explain(self, during: str) -> str:
        """One sentence on why a collective failed: the process at fault, or that none is known.

        Args:
            during: what this process did.
        """
        here = f"noticed by {self._name(self._rank, self._self)} at step {self.place.step}, {during}"
        again = "start the same command again to continue from the last checkpoint"
        try:
            before, until = self._signs(), time.monotonic() + WATCHED
            while not (left := self._left()) and time.monotonic() < until:
                time.sleep(0.1)
            now = self._signs()
        except RuntimeError as error:
            return (
                f"{self._server}, which serves the group's store, is gone ({_line(error)}); {here}; {again}"
            )
        for rank, reason in left.items():
            return f"{self._name(rank, now.get(rank))} stopped: {reason} ({here}); correct it, then {again}"
        others = [rank for rank in range(self._world_size) if rank != self._rank]
        silent = [rank for rank in others if now.get(rank) == before.get(rank) and not self._victim(rank)]
        if silent:
            names = ", ".join(self._name(rank, now.get(rank)) for rank in silent)
            where = _where(now.get(silent[0]))
            return (
                f"{names} gives no sign of life: killed (for want of memory?), stopped or cut off, last seen "
                f"{where}; {here}; {again}"
            )
        late = [rank for rank in others if (now.get(rank) or {}).get("step") != self.place.step] or others
        names = ", ".join(f"{self._name(rank, now.get(rank))} {_where(now.get(rank))}" for rank in late[:4])
        return (
            f"a collective did not end within {self.timeout_s:g} s: waited for {names}; {here}; {again}, "
            "with a higher distributed.timeout if a step may take so long"
        )

    def leave(self, reason: str | None) -> None:
        """Tell the others that this process ends early: why, or None if another one is the cause."""
        with contextlib.suppress(RuntimeError):
            self._ask(lambda: self._store.set(f"left/{self._rank}", json.dumps(reason)))

    def linger(self) -> None:
        """Give the others time to read what the store holds."""
        time.sleep(WATCHED + BEAT)

    def close(self) -> None:
        """End the signs of life."""
        self._closing.set()
        self._thread.join(timeout=2 * BEAT)

    # ---- signs of life ------------------------------------------------------------------------------------

    def _beats(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone, and the group with it
            while not self._closing.wait(BEAT):
                self._beat(self._own)

    def _beat(self, store: Store) -> None:
        self._count += 1
        sign = {**self._self, **vars(self.place), "count": self._count}
        store.set(f"beat/{self._rank}", json.dumps(sign))

    def _signs(self) -> dict[int, dict[str, Any]]:
        """The last sign of each process that has come."""
        return self._ask(lambda: self._read("beat"))

    def _left(self) -> dict[int, str]:
        """Reasons of processes that left and were the first to."""
        return {rank: why for rank, why in self._ask(lambda: self._read("left")).items() if why is not None}

    def _victim(self, rank: int) -> bool:
        return rank in self._ask(lambda: self._read("left"))

    def _require_life(self) -> None:
        signs, now = self._signs(), time.monotonic()
        for rank in range(self._world_size):
            text = json.dumps(signs.get(rank))
            if text != self._changed.get(rank, ("", 0.0))[0]:
                self._changed[rank] = text, now
        longest = max(now - when for _, when in self._changed.values())
        if self._left() or longest > self.timeout_s:
            raise PeerError(self.explain("waiting for the others"))

    # ---- the store ----------------------------------------------------------------------------------------

    def _read(self, kind: str) -> dict[int, Any]:
        keys = {rank: f"{kind}/{rank}" for rank in range(self._world_size)}
        if not self._store.check(list(keys.values())):
            keys = {rank: key for rank, key in keys.items() if self._store.check([key])}
        if not keys:
            return {}
        values = self._store.multi_get(list(keys.values()))
        return {rank: json.loads(value) for rank, value in zip(keys, values, strict=True)}

    def _came(self, key: str, seconds: float) -> bool:
        try:
            self._store.wait([key], timedelta(seconds=seconds))
        except DistStoreError:  # not within this time
            return False
        return True

    def _ask(self, question: Callable[[], _T]) -> _T:
        """The store's answer; a store on a stopped host would let its client wait for ever."""
        answers: list[_T] = []
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                answers.append(question())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(ANSWER)
        if errors:
            raise errors[0]
        if not answers:
            raise RuntimeError(f"no answer within {ANSWER:g} s")
        return answers[0]

    @staticmethod
    def _name(rank: int, sign: dict[str, Any] | None) -> str:
        if not sign:
            return f"rank {rank} (it never came)"
        return f"rank {rank} on host {sign['host']} (process {sign['pid']})"


def _where(sign: dict[str, Any] | None) -> str:
    return f"at step {sign['step']}, {sign['doing']}" if sign else "never"


def _line(error: BaseException) -> str:
    """The first line of a text, without the place in somebody's source."""
    text = str(error).partition("\n")[0]
    return text.partition("] ")[2] or text if text.startswith("[") else text

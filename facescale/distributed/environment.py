"""What the environment says about this process among its peers, as torchrun and its kind set it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

_OF_GROUP = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_HOW = "start several processes with torchrun, or unset RANK and WORLD_SIZE for a single one"


@dataclass(frozen=True)
class Launch:
    """One process of a group that is to be formed.

    Attributes:
        rank: number of this process.
        world_size: number of processes.
        local_rank: its number on this host.
        address: host of the group's store.
        port: of the store.
        is_agent: torchrun serves the store; otherwise rank 0 does.
        attempt: how often torchrun has started the processes again.
    """

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int
    is_agent: bool
    attempt: str

    @property
    def server(self) -> str:
        """Who serves the store of the group."""
        return f"{'torchrun' if self.is_agent else 'rank 0'} at {self.address}:{self.port}"


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """The group that the environment describes, or None for a single process.

    Raises:
        ValueError: it is described in part, or with impossible numbers.
    """
    given = {key: environment[key].strip() for key in _OF_GROUP if environment.get(key, "").strip()}
    if "WORLD_SIZE" not in given:
        if "RANK" in given or "WORLD_SIZE" in environment:
            left = f"RANK={given['RANK']}" if "RANK" in given else "an empty WORLD_SIZE"
            raise ValueError(f"the environment has {left} but no number of processes in WORLD_SIZE; {_HOW}")
        return None
    world_size = _number("WORLD_SIZE", given, 1)
    rank = _number("RANK", given, 0) if "RANK" in given or world_size > 1 else 0
    if rank >= world_size:
        raise ValueError(f"RANK={rank} is not below WORLD_SIZE={world_size}; {_HOW}")
    if world_size == 1:
        return None
    missing = [key for key in _OF_GROUP if key not in given]
    if missing:
        raise ValueError(
            f"the environment has WORLD_SIZE={world_size} but no {' and no '.join(missing)}; {_HOW}"
        )
    port = _number("MASTER_PORT", given, 1)
    local = environment.get("LOCAL_RANK", "").strip()
    return Launch(
        *(rank, world_size, int(local) if local.isdigit() else 0, given["MASTER_ADDR"], port),
        is_agent=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def _number(key: str, given: Mapping[str, str], least: int) -> int:
    text = given.get(key)
    if text is None:
        raise ValueError(f"the environment has WORLD_SIZE={given['WORLD_SIZE']} but no {key}; {_HOW}")
    if not text.isdigit() or not least <= int(text) < 1 << 16:
        raise ValueError(f"{key}={text} in the environment is not a whole number from {least}; {_HOW}")
    return int(text)

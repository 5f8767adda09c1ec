"""All processes must run the same thing: a small digest of it is compared."""

import hashlib
import json
import socket
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import nn

from facescale.distributed.dist import Dist

_SHOWN = 60  # characters of a value in a message


def compare_ranks(dist: Dist, values: Mapping[str, object]) -> None:
    """Refuse to go on unless every process holds the same ``values``.

    Costs one gathered digest of 16 bytes; the values themselves travel only when they differ.

    Args:
        dist: this process among its peers, all of which call this.
        values: by name, such as the keys of a config, or digests of data.

    Raises:
        ValueError: which process differs from the others, in which value.
    """
    if dist.world_size == 1:
        return
    texts = {key: json.dumps(value, default=str) for key, value in values.items()}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).digest()[:16]
    all_digests = dist.all_gather(torch.tensor([list(digest)], dtype=torch.uint8, device=dist.device))
    if bool((all_digests == all_digests[0]).all()):
        return
    said = [json.loads(text) for text in dist.gather_text(json.dumps([socket.gethostname(), texts]))]
    raise ValueError(_difference(said))


def _difference(said: list[tuple[str, dict[str, str]]]) -> str:
    """The sentence on the first process that differs from most others."""
    keys = list(dict.fromkeys(key for _, texts in said for key in texts))
    whole = [json.dumps(texts, sort_keys=True) for _, texts in said]
    usual = whole.index(Counter(whole).most_common(1)[0][0])
    other = next(rank for rank, text in enumerate(whole) if text != whole[usual])
    (host, one), (usual_host, most) = said[other], said[usual]
    wrong = [key for key in keys if one.get(key) != most.get(key)]
    parts = [f"{key} ({_short(one.get(key))}, not {_short(most.get(key))})" for key in wrong[:3]]
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return (
        f"rank {other} on host {host} differs from rank {usual} on host {usual_host} in "
        f"{', '.join(parts)}{more}; start all processes with the same command, code and data"
    )


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."


@cache
def source_digest() -> str:
    """12 hex digits of the package's source, as it is on this host."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def weights_checksum(net: nn.Module) -> int:
    """A number that changes with (almost) any change of a weight; waits for the device once."""
    sums = []
    for place, x in enumerate(net.parameters()):
        bits = x.detach().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
        sums.append(bits.sum(dtype=torch.int64) * (2 * place + 1))
    return int(torch.stack(sums).sum()) if sums else 0

"""Class centres of given identities, whichever process holds them."""

import torch
from torch import Tensor

from facescale.centres.store import CentreStore

# N identities, K centres of each, D embedding size


def read(store: CentreStore, id_N: Tensor) -> Tensor:
    """Centres (N * K, D) of any identities, float32; all processes call and get the same."""
    rows_ND = torch.zeros(len(id_N) * store.rows_per_id, store.dim, device=store.dist.device)
    mine_N, rows = _mine(store, id_N)
    if len(rows):
        rows_ND[mine_N] = store.open(rows, name="io").rows_RD
    return store.dist.all_reduce(rows_ND)


def write(store: CentreStore, id_N: Tensor, rows_ND: Tensor) -> None:
    """Set centres (N * K, D) of distinct identities and clear their optimizer state."""
    mine_N, rows = _mine(store, id_N)
    if len(rows):
        store.flush()
        store.write_back(rows, store.rows_from(rows, {"rows": rows_ND[mine_N]}))


def _mine(store: CentreStore, id_N: Tensor) -> tuple[Tensor, Tensor]:
    """Which centres of the given identities are here, and their local rows (distinct identities)."""
    mine_N = (id_N >= store.first_id) & (id_N < store.stop_id)
    rows = store.rows_of(id_N[mine_N].cpu() - store.first_id)
    return mine_N.repeat_interleave(store.rows_per_id), rows

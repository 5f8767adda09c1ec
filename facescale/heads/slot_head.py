"""Base of the heads whose centres are in slots that identities take in turn; they get no gradient."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from facescale.distributed import Dist
from facescale.files import Writing, follow_umask
from facescale.guard.tensor_file import open_tensors
from facescale.heads.base import Bytes, ClassHead
from facescale.heads.fused_softmax import kernels_for
from facescale.heads.queue_softmax import Chunks, negatives_value
from facescale.heads.softmax import is_bounded, is_plain
from facescale.margins import Margin, TargetLogits
from facescale.ops import default_chunk, product_dtype, to_device, unit
from facescale.pools import IntArray, LruPool, Pool, RingPool

# P planes (rows that a slot holds), S slots of this process, N slots given, G batch of all processes,
# D embedding size

_FILL = 4096  # identities that enter an empty container at once


class SlotHead(ClassHead):
    """Rows (P, S, D) of one logical container whose slots are divided between the processes.

    All processes know which identity is in which slot (``pool``); each row is held by one. Every process sees
    the embeddings of all, compares them with its rows, and gets the same loss. Under ``torch.device("meta")``
    no rows are made: for sizes.

    State: ``pool`` in ``state_dict``; the rows by ``save_rows``, for any number of processes.

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines.
        dist: this process among its peers.
        size: slots of all processes; 0 takes ``share`` of the identities.
        share: see ``size``.
        planes: P.
        unique: an identity has one slot, the least recently used one gives way; else a ring.
        random: empty slots hold random directions and count, as in the releases.
        products: precision of the matrix products: "auto", "float32" or "bfloat16".
        chunk: slots compared with at a time; 0 is a good size for the device.
        seed: of the random directions.

    Raises:
        ValueError: an option out of range.
    """

    rows: Tensor

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        margin: Margin,
        dist: Dist,
        *,
        size: int,
        share: float,
        planes: int,
        unique: bool,
        random: bool,
        products: str,
        chunk: int,
        seed: int,
    ) -> None:
        super().__init__(num_ids, embedding_size, margin, dist)
        if size < 0 or not 0 < share <= 1:
            raise ValueError(
                f"slots are size={size}, share={share}; give a size above 0, or 0 and a share of the "
                "identities above 0 up to 1"
            )
        self.size = size or max(1, int(share * num_ids))
        self.margin.set_num_negatives(self.size)
        self.pool: Pool = (LruPool if unique else RingPool)(self.size)
        self.first, self.stop = dist.shard(self.size)
        self.products = product_dtype(products, dist.device)
        # Tensors of a chunk are fresh ones: on a CPU large ones cost page faults and memory that stays taken
        width = embedding_size * (8 if dist.device.type == "cpu" else 1)
        self.chunk = chunk or default_chunk(width, dist.device)
        # Kernels that keep logits in registers and subtract nothing from them
        takes = is_plain(self.margin) and is_bounded(self.margin)
        self.kernels = kernels_for(dist.device, self.products, embedding_size) if takes else None
        self._random = random
        sizes_only = torch.get_default_device().type == "meta"
        rows_PSD = torch.zeros(
            *(planes, self.stop - self.first, embedding_size), device="meta" if sizes_only else dist.device
        )
        if random and not sizes_only:  # the same for any number of processes
            generator = torch.Generator().manual_seed(seed)
            for plane_SD in rows_PSD:
                directions = torch.randn(self.size, embedding_size, generator=generator)
                plane_SD.copy_(unit(directions[self.first : self.stop]))
        self.register_buffer("rows", rows_PSD, persistent=False)

    @property
    def num_counting(self) -> int:
        """Slots of this process that are compared with: its first ones."""
        used = self.size if self._random else len(self.pool)
        return min(max(used - self.first, 0), self.stop - self.first)

    def num_compared(self, batch_size: int) -> int:
        """See ``ClassHead.num_compared``: all slots of this process."""
        return self.stop - self.first

    def fill(self) -> None:
        """See ``ClassHead.fill``: every slot gets an identity and a random direction."""
        for start in range(0, self.size, _FILL):
            self.pool.get(np.arange(start, min(start + _FILL, self.size)))
        self.set_extra_state(self.get_extra_state())  # all that depends on which identity is where
        F.normalize(self.rows.normal_(), dim=-1, out=self.rows)

    def negatives(self, e_GD: Tensor, target: TargetLogits, chunks: Chunks) -> Tensor:
        """Log-sum-exp (or sum) over the rows in ``chunks`` for each sample, (G,); the same everywhere."""
        exact = e_GD.dtype is not torch.float32
        dtype, kernels = (e_GD.dtype, None) if exact else (self.products, self.kernels)
        return negatives_value(e_GD, self.margin, target, chunks, dtype, self.dist, kernels)

    def read(self, plane: int, slots: IntArray) -> Tensor:
        """Rows (N, D) of any slots, also of other processes; for slot -1 zeros. All processes call."""
        rows_ND = self.rows.new_zeros(len(slots), self.embedding_size)
        mine = self.mine(slots)
        place_M, mine_M = on(self.rows, slots[mine] - self.first, mine)
        rows_ND[mine_M] = self.rows[plane, place_M]
        return self.dist.all_reduce(rows_ND)

    def mine(self, slots: IntArray) -> IntArray:
        """Which of ``slots`` are of this process."""
        return np.flatnonzero((slots >= self.first) & (slots < self.stop))

    # ---- state --------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Which identity is in which slot, for ``state_dict``."""
        return {"pool": {name: torch.from_numpy(x) for name, x in self.pool.state().items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over what ``get_extra_state`` gave.

        Raises:
            ValueError: it does not fit the number of slots.
        """
        self.pool.restore({name: x.numpy() for name, x in state["pool"].items()})

    def row_bytes(self) -> int:
        """See ``ClassHead.row_bytes``."""
        return self.rows.nbytes

    def rows_to_save(self, folder: Path, copy: bool) -> Writing:
        """See ``ClassHead.rows_to_save``."""
        rows = self.rows.to("cpu", copy=copy)
        path = folder / f"slots_{self.first:012d}.safetensors"

        def write() -> list[Path]:
            save_file({"rows": rows.cpu()}, path)
            follow_umask(path)
            return [path]

        return Writing(rows.nbytes, write)

    def load_rows(self, folder: Path) -> None:
        """Read the rows that any number of processes saved.

        Raises:
            ValueError: no rows were saved there, or those of a process are missing.
        """
        next_slot = 0
        for path in sorted(folder.glob("slots_*.safetensors")):
            first = int(path.stem.removeprefix("slots_"))
            if first != next_slot:
                raise ValueError(
                    f"slots {next_slot} to {first - 1} are missing in {folder}; use a whole checkpoint"
                )
            with open_tensors(path, "the slots") as file:
                saved = file.get_slice("rows")
                next_slot += saved.get_shape()[1]
                start, stop = max(first, self.first), min(first + saved.get_shape()[1], self.stop)
                if start < stop:
                    self.rows[:, start - self.first : stop - self.first] = saved[
                        :, start - first : stop - first
                    ]
        if next_slot == 0:
            raise ValueError(f"no slots of a container or pool in {folder}; use a whole checkpoint")

    def slot_bytes(self, batch_size: int, embeddings: float, share: float, copied: bool) -> Bytes:
        """Planned memory of rows and bookkeeping, and the peak while a chunk is compared.

        Args:
            batch_size: of this process.
            embeddings: how many arrays of the size of all embeddings exist then.
            share: of the samples that are compared.
            copied: whether chunks of rows are copied.
        """
        batch = batch_size * self.dist.world_size
        chunk = min(self.chunk, self.stop - self.first)
        cells, row_values = share * chunk * batch, chunk * self.embedding_size
        transient = 4 * embeddings * batch * self.embedding_size + 4 * row_values * copied
        if self.kernels is not None:
            transient += self.kernels.forward_bytes(batch, self.embedding_size)
            return Bytes(device=self.rows.numel() * 4, host=self.pool.bytes, transient=int(transient))
        # float32 logits and a byte that hides; margins that bend each logit make half a dozen more of them
        transient += (5 if self.margin.plain_negatives else 32) * cells
        if self.products is not torch.float32:
            transient += 4 * cells + 2 * row_values
        return Bytes(device=self.rows.numel() * 4, host=self.pool.bytes, transient=int(transient))


def last_of(slots: IntArray) -> IntArray:
    """Places (ascending by slot) of the last entry of each slot: of repeated writes the last one stays."""
    _, from_end = np.unique(slots[::-1], return_index=True)
    return slots.size - 1 - from_end


def on(like: Tensor, *arrays: IntArray) -> list[Tensor]:
    """NumPy arrays as tensors where ``like`` is, in one copy that nobody waits for."""
    return to_device(like.device, *(torch.from_numpy(array) for array in arrays))


def concatenated(parts: Sequence[Chunks]) -> Chunks:
    """Chunks of several sources, one after the other."""
    return lambda: (chunk for part in parts for chunk in part())

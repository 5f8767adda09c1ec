"""Class centres and the state of their optimizer: sharded, in device memory, host memory or on disk."""

from pathlib import Path

import torch
from torch import Tensor

from facescale.centres.disk import DiskRows
from facescale.centres.fused_sgd import FusedSGD
from facescale.centres.initial import InitialRows
from facescale.centres.layout import BLOCK, RowField, Rows, count
from facescale.centres.memory import MemoryRows, scatter_
from facescale.centres.options import StoreOptions
from facescale.centres.row_block import RowBlock, wide
from facescale.centres.row_optim import DenseSteps, RowSGD
from facescale.centres.staging import Buffer, Stage
from facescale.centres.transfers import Transfers
from facescale.distributed import Dist
from facescale.kernels import available
from facescale.ops import Scratch, StochasticRounding

# N rows of this process, R rows at hand, D embedding size


class CentreStore:
    """The class centres of this process's identities, and a row-sparse optimizer for them.

    Identity i owns ``rows_per_id`` rows. Processes own contiguous ranges of identities (``Dist.shard``). A
    head opens rows, computes with them in float32, and gives them back with a gradient (``update``); no other
    row is read or written. All row numbers below are local: 0 is the first row of this process.

    Rows start as N(0, 0.01), a function of seed and row alone. Values that are stored in half precision are
    rounded stochastically when they are written.

    Under ``torch.device("meta")`` no row, file or buffer is made: for sizes (``centre_bytes``).

    Attributes:
        rounding: how values are narrowed to half precision, or None.

    State: rows (num_ids * rows_per_id, dim), and per row the optimizer's: momentum (sgd), or two moments and
    a step count (adamw). bfloat16 stores keep these in bfloat16 too, float16 stores in float32 (squared
    gradients are below its range).

    Args:
        num_ids: identities of all processes.
        dim: D.
        dist: this process among its peers.
        options: placement, precision and optimizer.
        rows_per_id: sub-centres.
        dense_decay: a row that is not opened for an update decays and moves on by its momentum, as under
            torch.optim.SGD over the whole matrix (done when it is next read); by default it stays as it is.
        seed: of the start values and of stochastic rounding.

    Raises:
        ValueError: an option out of range, or dense decay with an optimizer that is not a linear step.
    """

    def __init__(
        self,
        num_ids: int,
        dim: int,
        dist: Dist,
        options: StoreOptions,
        *,
        rows_per_id: int = 1,
        dense_decay: bool = False,
        seed: int = 0,
    ) -> None:
        self.num_ids, self.dim, self.rows_per_id, self.dist = num_ids, dim, rows_per_id, dist
        self.placement = options.placement
        self.first_id, self.stop_id = dist.shard(num_ids)
        self.num_rows = (self.stop_id - self.first_id) * rows_per_id
        self.first_row = self.first_id * rows_per_id
        dtype = options.dtype
        self.rule = options.row_rule()
        self.dense = DenseSteps(self.rule, dist.device) if dense_decay else None
        state_dtype = torch.float32 if dtype is torch.float16 else dtype
        self.fields = [RowField("rows", dim, dtype), *self.rule.fields(dim, state_dtype)]
        if self.dense:
            self.fields.append(RowField("last", 1, torch.int32))
        self._fields_to_read = self.fields if self.dense else self.fields[:1]
        self.scratch = Scratch(dist.device)
        self.memory: MemoryRows | None = None
        self.disk: DiskRows | None = None
        self.fused: FusedSGD | None = None
        self._stage: Stage | None = None
        self._transfers = Transfers(dist.device)
        self._turn = 0
        self.rounding: StochasticRounding | None = None
        if torch.get_default_device().type != "meta":
            if dtype is not torch.float32:
                self.rounding = StochasticRounding(dist.device, seed)
            self._make_rows(InitialRows(dim, num_ids * rows_per_id, seed), options.directory)
            if self.fuses and isinstance(self.rule, RowSGD):
                self.fused = FusedSGD(self.rule)

    def _make_rows(self, initial: InitialRows, directory: str | Path | None) -> None:
        dist = self.dist
        if directory is not None:
            folder = Path(directory) / f"process_{dist.rank}"
            folder.mkdir(parents=True, exist_ok=True)
            self.disk = DiskRows(self.num_rows, self.fields, folder, initial, self.first_row)
            self._stage = Stage(self.disk)
            return
        where = dist.device if self.placement == "device" else torch.device("cpu")
        pinned = self.placement == "host" and dist.device.type == "cuda"
        self.memory = MemoryRows(self.num_rows, self.fields, where, pinned)
        for start in range(0, self.num_rows, BLOCK):
            numbers = torch.arange(start, min(start + BLOCK, self.num_rows))
            into = self.memory.tensors["rows"][start : start + BLOCK]
            into.copy_(initial(numbers + self.first_row))
        if self.placement == "host":
            self._stage = Stage(self.memory)

    @property
    def fuses(self) -> bool:
        """Whether ``FusedSGD`` moves the rows: float32 with momentum (not Nesterov's), on a CPU."""
        if not isinstance(self.rule, RowSGD) or self.rule.nesterov:
            return False
        kinds = [(field.name, field.dtype) for field in self.fields]
        wanted = [("rows", torch.float32), ("momentum", torch.float32)]
        return self.dist.device.type == "cpu" and kinds == wanted and available()

    @property
    def staged(self) -> bool:
        """Whether rows are copied to a buffer before they are computed with (host, disk)."""
        return self._stage is not None

    @property
    def in_place(self) -> bool:
        """Whether that moves them in the store itself, not in a block."""
        return self.fused is not None and self._stage is None

    def open(self, rows: Rows, only_rows: bool = False, name: str = "open") -> RowBlock:
        """Working copies of rows (the rows themselves where no copy is needed), valid until the next call.

        Args:
            rows: local rows.
            only_rows: leave out what only an update needs.
            name: calls with different names do not overwrite each other's result.
        """
        if self._stage:
            in_turn = isinstance(rows, slice) and self.dist.device.type == "cuda"
            self._turn ^= in_turn  # two chunks on the device in turn: one is copied beside the computation
            key = f"{name} {self._turn}" if in_turn else name
            return self._from_buffer(self._stage.fetch(rows, name), count(rows), key, in_turn)
        return self._from_memory(rows, self._fields_to_read if only_rows else self.fields, name)

    def gather(self, rows: Tensor, expected: Tensor | None = None) -> tuple[Tensor, RowBlock | None]:
        """Announce that ascending scattered rows will be opened, chunk by chunk, in this step.

        Args:
            rows: ascending local rows.
            expected: rows for which ``prefetch`` is called before such a call, a function of the step; it
                decides the order also where they were not fetched (after a resume).

        Returns:
            The rows in the order in which to open them, and where rows are staged (host, disk) all of them in
            a block, of which to take parts and which ``write_back`` stores as a whole. In device memory there
            is none: ``open`` is as fast.
        """
        if self._stage is None:
            return rows, None
        order, buffer = self._stage.gather(rows, expected, "gather")
        return order, self._from_buffer(buffer, len(rows), "gather")

    def prefetch(self, rows: Rows) -> None:
        """Start to fetch rows that will probably be wanted next (nothing to do in device memory)."""
        if self._stage:
            self._stage.prefetch(rows, "open" if isinstance(rows, slice) else "gather")

    def update(self, rows: Rows, block: RowBlock, grad_RD: Tensor, lr: float) -> None:
        """Move opened rows and write them back; ``grad_RD`` is what ``rule.gradient_into`` became.

        A part of a gathered block is not written back.
        """
        self.rule.step(block.fields, grad_RD, lr)
        if self.dense:
            block.fields["last"].fill_(self.dense.now + 1)
        if self._stage is None or block.buffer is not None:
            self.write_back(rows, block)

    def move(self, rows: Rows, block: RowBlock, grad_RD: Tensor, lr: float) -> None:
        """What ``update`` does, by ``fused``.

        Args:
            rows: local rows.
            block: as ``open`` or ``gather`` returned them; not read if they are moved ``in_place``.
            grad_RD: see ``FusedSGD.step``.
            lr: rate.
        """
        assert self.fused is not None
        if self.in_place:
            assert self.memory is not None
            self.fused.step(self.memory.tensors, rows, grad_RD, lr)
            return
        self.fused.step(block.fields, slice(0, count(rows)), grad_RD, lr)
        if block.buffer is not None:
            self.write_back(rows, block)

    def rows_from(self, rows: Tensor, fields: dict[str, Tensor]) -> RowBlock:
        """A block for ``write_back`` that holds given values; fields that are not given start anew."""
        block = self.open(rows, name="given")
        for name, into in block.fields.items():
            if name in fields:
                into.copy_(fields[name])
            else:
                into.fill_(self.dense.now if self.dense and name == "last" else 0)
        return block

    def write_back(self, rows: Rows, block: RowBlock) -> None:
        """Store opened rows."""
        if self._stage and block.buffer is not None:
            all_pairs = [(block.buffer[key][: count(rows)], value) for key, value in block.fields.items()]
            pairs = [
                (into, self._narrowed(value, into.dtype))
                for into, value in all_pairs
                if value.data_ptr() != into.data_ptr()
            ]
            self._stage.write(rows, block.buffer, self._transfers.to_host(pairs))
            return
        assert self.memory is not None
        for name, value in block.fields.items():
            tensor = self.memory.tensors[name]
            if not isinstance(rows, slice):
                scatter_(tensor, rows.to(tensor.device), self._narrowed(value, tensor.dtype))
            elif tensor[rows].data_ptr() != value.data_ptr():
                tensor[rows] = self._narrowed(value, tensor.dtype)

    def begin_update(self, step: int) -> None:
        """Before rows move in step number ``step``: round as every run does in this step, resumed or not."""
        if self.rounding:
            self.rounding.seek(step)

    def end_step(self, lr: float) -> None:
        """After all rows of a step have moved: count the step for those that it did not open."""
        if self.dense:
            self.dense.add(lr)

    def flush(self) -> None:
        """Wait until all rows are written."""
        if self._stage:
            self._stage.forget()

    def rows_of(self, id_R: Tensor) -> Tensor:
        """Local rows (R * rows_per_id) of local identities."""
        if self.rows_per_id == 1:
            return id_R
        return (id_R[:, None] * self.rows_per_id + torch.arange(self.rows_per_id)).reshape(-1)

    def _from_memory(self, rows: Rows, fields: list[RowField], name: str) -> RowBlock:
        assert self.memory is not None
        tensors = {}
        for field in fields:
            if isinstance(rows, slice):
                tensors[field.name] = self._widened(
                    self.memory.tensors[field.name][rows], f"{name}/{field.name}"
                )
            else:
                into = self.scratch.take(f"{name}/{field.name}", (len(rows), field.width), wide(field))
                tensors[field.name] = self._read(rows, field, into)
        return self._caught_up(RowBlock(tensors))

    def _read(self, rows: Tensor, field: RowField, into: Tensor) -> Tensor:
        """Gather one field of scattered rows from device memory."""
        assert self.memory is not None
        tensor = self.memory.tensors[field.name]
        if tensor.dtype == into.dtype:
            return torch.index_select(tensor, 0, rows.to(tensor.device), out=into)
        stored = self.scratch.take("stored", into.shape, tensor.dtype)
        return into.copy_(torch.index_select(tensor, 0, rows.to(tensor.device), out=stored))

    def _from_buffer(self, buffer: Buffer, size: int, name: str, alternating: bool = False) -> RowBlock:
        sources = {p.name: buffer[p.name][:size] for p in self.fields}
        fields = {key: self._room(source, f"{name}/{key}") for key, source in sources.items()}
        pairs = [(fields[key], source) for key, source in sources.items() if fields[key] is not source]
        if pairs and self._stage:
            self._stage.hold(buffer, self._transfers.to_device(pairs, alternating))
        return self._caught_up(RowBlock(fields, buffer))

    def _room(self, tensor: Tensor, key: str) -> Tensor:
        """Where to compute with some values: themselves, or room for them on the device, widened."""
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        if tensor.dtype == dtype and tensor.device == self.dist.device:
            return tensor
        return self.scratch.take(key, tensor.shape, dtype)

    def _widened(self, tensor: Tensor, key: str) -> Tensor:
        room = self._room(tensor, key)
        return room if room is tensor else room.copy_(tensor)

    def _narrowed(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return self.rounding.round(value, dtype) if self.rounding and value.dtype != dtype else value

    def _caught_up(self, block: RowBlock) -> RowBlock:
        if self.dense and "last" in block.fields:
            self.dense.catch_up(block.fields)
        return block

"""Read class centres of versions up to 0.1, which saved them with torch.distributed.checkpoint.

The index of such a checkpoint is a pickle, which can call any function of Python. Here it may name nothing
but what is on a closed list, and each of these names stands for an inert record.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facescale.centres.wanted import Wanted
from facescale.guard.limits import PICKLE_BYTES
from facescale.guard.pickles import load_closed
from facescale.guard.reading import read_bytes, reason
from facescale.guard.torch_file import load_torch

INDEX = ".metadata"
_FILE = re.compile(r"__\d+_\d+\.distcp")
_DTYPES = ("float32", "float16", "bfloat16", "int32", "int64")


class _Record:
    """Whatever an object of the index holds, as attributes or as a state."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


def _path(*parts: str) -> str:
    return "/".join(parts)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _Record,
    ("torch.serialization", "_get_layout"): _Record,
    ("torch", "Size"): tuple,
    ("pathlib", "PosixPath"): _path,
    ("pathlib", "WindowsPath"): _path,
    ("pathlib._local", "PosixPath"): _path,
    ("pathlib._local", "WindowsPath"): _path,
    **{("torch", name): getattr(torch, name) for name in _DTYPES},
}
_OF_METADATA = (
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "Metadata",
    "MetadataIndex",
    "StorageMeta",
    "TensorProperties",
    "TensorStorageMetadata",
    "_MEM_FORMAT_ENCODING",
)
_ALLOWED |= {("torch.distributed.checkpoint.metadata", name): _Record for name in _OF_METADATA}


def read_blocks(folder: Path, wanted: Wanted) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """(global rows, values by what they are) of every block that holds wanted rows, as ``row_files`` does.

    Raises:
        ValueError: the index or a file is damaged, or not one that facescale wrote.
    """
    blocks: dict[int, dict[str, Any]] = {}
    try:
        data = read_bytes(folder / INDEX, "the index", PICKLE_BYTES)  # 2 MB for 100 million rows
        index = load_closed(data, _ALLOWED, settable=(_Record,), keys=(_Record,), what="an index of centres")
        for key, info in index.storage_data.items():
            if not isinstance(key.fqn, str):  # the text of a nested tuple may be endless
                raise ValueError("its index names tensors by something other than text")
            name, _, number = key.fqn.partition("/")
            blocks.setdefault(int(number), {})[name] = info
        for first, infos in sorted(blocks.items()):
            num_rows = int(index.state_dict_metadata[f"rows/{first:015d}"].size[0])
            if wanted.overlaps(first, first + num_rows):
                values = {name: _tensor(folder, info) for name, info in infos.items()}
                if any(len(x) != num_rows or x.ndim != 2 for x in values.values()):
                    raise ValueError("its index and its files disagree")
                yield torch.arange(first, first + num_rows), values
    except Exception as error:  # the index is not of the form that was written, or a file is damaged
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: Exception) -> ValueError:
    why = reason(error)
    return ValueError(f"class centres in {folder} cannot be read ({why}); use an earlier checkpoint")


def _tensor(folder: Path, info: Any) -> Tensor:
    if not _FILE.fullmatch(info.relative_path):
        raise ValueError(f"'{info.relative_path}' is not the name of one of its files")
    with (folder / info.relative_path).open("rb") as file:
        file.seek(info.offset)
        tensor = load_torch(io.BytesIO(file.read(info.length)))
    if not isinstance(tensor, Tensor):
        raise ValueError("it holds something else than tensors")
    return tensor

"""What an ONNX file of another project expects of its images, as far as its first nodes tell.

Exporters of MXNet and others leave the normalisation in the graph: the first nodes subtract and multiply by
constants. Such a file takes pixels of 0 to 255 (or 0 to 1), not numbers that are normalised already.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facescale.data.spec import parse_options
from facescale.model_card import Contract

_PASSED_THROUGH = ("Identity", "Cast", "Dropout")
_EXAMPLE = "colour=BGR,mean=127.5,std=127.5,flip=yes"

Constants = dict[str, npt.NDArray[Any]]
Affine = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # scale and shift of a value, per channel


@dataclass(frozen=True)
class Guess:
    """A contract that was not stated.

    Attributes:
        contract: it.
        reason: what it rests on, for people.
    """

    contract: Contract
    reason: str


def guess_contract(path: str | Path, size: int) -> Guess:
    """The contract that the first nodes of an ONNX file suggest.

    Args:
        path: the file.
        size: side of its images, pixels.
    """
    try:
        import onnx
    except ImportError:
        return Guess(Contract(size), "assumed without a look at the graph, which needs the package onnx")
    scale, shift, names = 1.0, 0.0, []
    for name, (factor, offset) in _first_affines(onnx.load(str(path), load_external_data=False).graph):
        scale, shift = float(np.mean(factor)) * scale, float(np.mean(factor)) * shift + float(np.mean(offset))
        names.append(name)
    if not names:
        return Guess(Contract(size), "assumed: the graph does not normalise")
    nodes = f"its first nodes ({', '.join(names)}) compute {scale:.4g} v {shift:+.4g}"
    centre = -shift / scale if scale else 0.0  # what becomes 0
    if 0 < scale < 0.1 or centre > 20:
        return Guess(Contract(size, mean=0.0, std=1.0), f"probed: {nodes}, so it takes pixels of 0 to 255")
    if scale > 1.2 and 0.2 < centre < 0.8:
        return Guess(Contract(size, mean=0.0, std=255.0), f"probed: {nodes}, so it takes pixels of 0 to 1")
    return Guess(Contract(size), f"assumed: {nodes}, which fits no range of pixels")


def _first_affines(graph: Any) -> Iterator[tuple[str, Affine]]:
    """(operator, scale and shift) of the nodes that the input passes before anything else happens to it."""
    from onnx import numpy_helper

    constants: Constants = {
        item.name: numpy_helper.to_array(item) for item in graph.initializer if _small(item)
    }
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    value = next(item.name for item in graph.input if item.name not in constants)
    while True:
        users = [node for node in graph.node if value in node.input]
        if len(users) != 1:
            return
        node = users[0]
        if node.op_type not in _PASSED_THROUGH:
            affine = _affine(node, value, constants)
            if affine is None:
                return
            yield node.op_type, affine
        value = node.output[0]


def _small(tensor: Any) -> bool:
    """Whether a tensor can be a constant of a normalisation, and lies in the file itself."""
    return int(np.prod(tensor.dims or [1])) <= 4096 and not tensor.external_data


def _affine(node: Any, value: str, constants: Constants) -> Affine | None:
    """Scale and shift of a node; None where it is something else."""
    others = [constants.get(name) for name in node.input if name != value]
    if any(other is None for other in others):
        return None
    known = [np.asarray(other, np.float64).reshape(-1) for other in others]
    one, zero = np.ones(1), np.zeros(1)
    if node.op_type == "BatchNormalization" and len(known) == 4:
        gamma, beta, mean, variance = known
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        return scale, beta - mean * scale
    if len(known) != 1:
        return None
    constant, is_first = known[0], node.input[0] == value
    if node.op_type == "Add":
        return one, constant
    if node.op_type == "Mul":
        return constant, zero
    if node.op_type == "Sub":
        return (one, -constant) if is_first else (-one, constant)
    if node.op_type == "Div" and is_first and np.all(constant):
        return 1 / constant, zero
    return None


def stated_contract(text: str, contract: Contract) -> Contract:
    """``contract`` with what the user says of it: ``colour=BGR,mean=0,std=1,flip=no``.

    Raises:
        ValueError: an unknown key, or a value that is not allowed.
    """
    kinds: dict[str, Callable[[str], Any]] = {
        "colour": str.upper,
        "mean": float,
        "std": float,
        "flip": _truth,
    }
    values = parse_options(text, kinds, spec=text, example=_EXAMPLE)
    if not values:
        raise ValueError(f"the contract '{text}' states nothing; write it as {_EXAMPLE}")
    return replace(contract, **values)


def _truth(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"'{text}' is neither yes nor no")
    return text == "yes"

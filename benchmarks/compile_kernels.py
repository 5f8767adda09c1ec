"""Compile the Triton kernels for GPUs that need not be there: do they compile, does their memory fit?

python -m benchmarks.compile_kernels [--targets 80:512 89:256 90:512]

A target is a compute capability and an embedding size. Shared memory of a program is compared with what a
multiprocessor of that capability has for it. Nothing runs.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported: compile

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from facescale.kernels import pool_programs, row_programs, softmax_programs

SHARED = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10}
_INTEGERS = {
    "num_classes": "i32",
    "batch": "i32",
    "parts": "i32",
    "split": "i32",
    "seed": "i32",
    "rows": "i32",
}
_IDS = ("row_ptr", "key_ptr", "own_ptr", "sample_ptr")


def cases(dim: int) -> Iterator[tuple[Any, dict[str, Any], dict[str, str]]]:
    """Kernel, what it is compiled for, and types of pointers that are not to float32."""
    half = {"PRODUCTS": tl.bfloat16, "DOT": tl.bfloat16, "DIM": dim}
    wide = {"DIM": dim, "WIDE": triton.next_power_of_2(dim)}
    forward = {**half, "WIDE": wide["WIDE"], "SAMPLES": 64, "CLASSES": 32}
    e = {"e_ptr": "*bf16"}
    for gathered in (False, True):
        flags = {"GATHERED": gathered, "MORE": False, "KEYED": False, "UNIT": False, "BOUNDED": not gathered}
        yield softmax_programs.compare, {**forward, **flags}, e
    yield (
        softmax_programs.compare,
        {**forward, "GATHERED": False, "MORE": False, "KEYED": True, "UNIT": True, "BOUNDED": True},
        e,
    )
    of_pool = {"GATHERED": True, "MORE": True, "KEYED": False, "UNIT": True, "BOUNDED": True}
    yield softmax_programs.compare, {**forward, **of_pool, "CLASSES": 16}, e
    views = {"PLANES": 2, "DIM": dim, "KEEP": 8}
    yield pool_programs.nearest, {**views, "STEP": 64, "SAMPLES": 64, "CLASSES": 32}, {}
    yield pool_programs.pull, {**views, "HARD": 3, "KEYS": 128, "WIDE": wide["WIDE"]}, {}
    yield pool_programs.renew, {**wide, "MOVED": True}, {}
    for samples, rounds in ((128, False), (128, True), (512, False), (1024, False)):
        classes = min(64, 16_384 // samples)
        sizes = {"STEP": min(64, classes), "SAMPLES": samples, "CLASSES": classes}
        stored = {"w_ptr": "*bf16", "m_ptr": "*bf16"} if rounds else {}
        flags = {"GATHERED": rounds, "MOMENTUM": True, "STOCHASTIC": rounds}
        yield softmax_programs.move_rows, {**half, **sizes, **flags}, {**e, **stored}
    yield softmax_programs.join, {"DIM": dim, "STEP": 64, "PARTS": 256}, {}
    yield row_programs.unit_forward, wide, {}
    yield row_programs.unit_backward, {**wide, "HAS_NORM": True}, {}
    yield row_programs.attend, {**wide, "VIEWS": 2, "UNIT_KEYS": True}, {}


def shared_bytes(kernel: Any, constants: dict[str, Any], types: dict[str, str], capability: int) -> int:
    """Compile a kernel; shared memory of one of its programs."""

    def of(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name.endswith("_ptr"):
            return types.get(name, "*i64" if name in _IDS else "*fp32")
        return _INTEGERS.get(name, "fp32")

    source = ASTSource(kernel, {name: of(name) for name in kernel.arg_names}, constexprs=constants)
    stages = 1 if constants.get("MORE") else 2
    options = {"num_warps": 8, "num_stages": stages} if "PRODUCTS" in constants else {}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return int(compiled.metadata.shared)


def main(show: Callable[[str], None] = print) -> None:
    """Compile all kernels for all targets; say what each takes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", nargs="+", default=["80:512", "89:256", "90:512"])
    too_large = 0
    for target in parser.parse_args().targets:
        capability, dim = (int(number) for number in target.split(":"))
        for kernel, constants, types in cases(dim):
            shared = shared_bytes(kernel, constants, types, capability)
            fits = shared <= SHARED[capability]
            too_large += not fits
            named = {key: x for key, x in constants.items() if key in ("SAMPLES", "CLASSES", "STOCHASTIC")}
            show(
                f"sm_{capability} {kernel.__name__} {named}: {shared:,} bytes{'' if fits else ', TOO LARGE'}"
            )
    if too_large:
        raise SystemExit(f"{too_large} programs need more shared memory than there is")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()

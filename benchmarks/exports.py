"""What each export format costs and gains: bytes, accuracy, throughput on two cores against eager torch.

    python benchmarks/exports.py MODEL LFW [--calibrate-on DATA] [--pairs 1200] [--formats NAME,...]

MODEL is what `facescale export` takes, LFW a folder with pairs.txt. Every file is written, checked and
measured by the package's own export: embeddings against the network's, accuracy on the first pairs of each
fold before and after. Throughput is that of one view (no flip fusion), batch 32, on `--threads` threads;
the formats take turns with eager torch in short rounds, and the ratio is the median over rounds, so that
other load falls on both; one thread is measured in processor time, where other load does not count.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facescale.export.program import GraphEncoder, ProgramEncoder
from facescale.export.write import ExportReport, export
from facescale.inference.load import load
from facescale.inference.model import Encoder, Model
from facescale.inference.onnx_encoder import OnnxEncoder
from facescale.machine.onnx_session import session_options
from facescale.model_card import Graph

BATCH = 32
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "ONNX fp32": ("fp32.onnx", {}),
    "ONNX fp16": ("fp16.onnx", {"precision": "fp16"}),
    "ONNX fp16 weights": ("half.onnx", {"half_weights": True}),
    "ONNX int8": ("int8.onnx", {"precision": "int8"}),
    "torch.export": ("program.pt2", {}),
    "AOTInductor": ("compiled.aoti.pt2", {}),
}


@dataclass(frozen=True)
class Written:
    """A file, what its export found, and the file as an encoder."""

    name: str
    report: ExportReport
    encoder: Encoder


def part_of(lfw: Path, folder: Path, num_pairs: int) -> Path:
    """The first pairs of each kind in every fold of LFW's list, beside a link to its images."""
    header, *lines = (lfw / "pairs.txt").read_text().splitlines()
    folds, of_each = map(int, header.split())
    kept = num_pairs // (2 * folds)
    blocks = [lines[start : start + of_each] for start in range(0, len(lines), of_each)]
    made = folder / "lfw"
    made.mkdir()
    rows = [f"{folds}\t{kept}", *(line for block in blocks for line in block[:kept])]
    (made / "pairs.txt").write_text("\n".join(rows) + "\n")
    (made / "images").symlink_to((lfw / "images").absolute())
    return made


def write(args: argparse.Namespace, name: str, folder: Path, lfw: Path) -> Written:
    """Export, and open what was written."""
    file, options = FORMATS[name]
    out = folder / file
    faces = args.calibrate_on if name == "ONNX int8" else None
    report = export(
        args.model, out, check=[f"lfw={lfw}"], max_drop=1.0, calibrate_on=faces, images=args.images, **options
    )
    if file.endswith(".onnx"):
        return Written(name, report, with_threads(out, load(out, device="cpu"), args.threads))
    size = load(args.model, device="cpu").embedding_size
    if file.endswith(".aoti.pt2"):
        card = load(args.model, device="cpu").card
        return Written(name, report, GraphEncoder(torch._inductor.aoti_load_package(str(out)), card, size))
    return Written(name, report, ProgramEncoder(out, size))


def with_threads(out: Path, model: Model, threads: int) -> OnnxEncoder:
    """The file in a session of so many threads, which sleep while they wait: other programs run here, too."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(out), session_options(threads), providers=["CPUExecutionProvider"]
    )
    return OnnxEncoder(session, model.contract, model.card.graph or Graph())


def throughput(
    eager: Encoder, files: list[Written], size: int, rounds: int, clock: Callable[[], float]
) -> dict[str, tuple[float, float]]:
    """Images a second, and the ratio to eager torch, by name."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8))
    encoders = {"eager torch": eager} | {file.name: file.encoder for file in files}
    for encoder in encoders.values():
        encoder(images)

    def seconds(encoder: Encoder) -> float:
        start = clock()
        encoder(images)
        return clock() - start

    took: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(rounds):
        for name, encoder in encoders.items():
            took[name].append(min(seconds(encoder) for _ in range(3)))
    ratios = {
        name: statistics.median(e / t for e, t in zip(took["eager torch"], times, strict=True))
        for name, times in took.items()
    }
    return {name: (BATCH / statistics.median(times), ratios[name]) for name, times in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("lfw", type=Path)
    parser.add_argument("--calibrate-on", help="int8: faces, where MODEL is no run")
    parser.add_argument("--images", help="faces for the comparison of embeddings")
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--formats", default=",".join(FORMATS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    model = load(args.model, device="cpu")
    model.module.eval()
    files = []
    with tempfile.TemporaryDirectory() as folder:
        lfw = part_of(args.lfw, Path(folder), args.pairs)
        for name in args.formats.split(","):
            try:
                files.append(write(args, name, Path(folder), lfw))
            except (ValueError, RuntimeError) as error:
                print(f"{name}: not written: {error}", flush=True)
                continue
            found = files[-1].report
            (one,) = found.accuracy
            print(
                f"{name}: {found.num_bytes:,} bytes, accuracy {one.network:.2%} -> {one.file:.2%},"
                f" difference {found.max_relative_difference:.1e}, cosine {found.min_cosine:.6f},"
                f" {found.seconds:.0f} s",
                flush=True,
            )
        print(f"load {os.getloadavg()[0]:.1f}, {args.threads} threads")
        clock = time.process_time if args.threads == 1 else time.perf_counter
        rates = throughput(model.encoder, files, model.contract.size, args.rounds, clock)
        for name, (speed, ratio) in rates.items():
            print(f"{name}: {speed:.0f} images/s, {ratio:.2f} x eager torch")


if __name__ == "__main__":
    main()

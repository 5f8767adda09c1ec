"""`facescale serve` under load: 32 clients on loopback, every answer compared with the direct one.

    OMP_NUM_THREADS=1 python benchmarks/serve_load.py MODEL FACES [--clients 32] [--requests 640]

MODEL is a run with thresholds, FACES a folder of aligned faces with a folder for each person. The service
runs in a process of its own, as a user starts it. First one client asks, then all at once; each request
compares two photos or searches a gallery, and its answer must be what the model gives directly in this
process (cosine to 1e-5, the same person and decision). Then hostile uploads come from all clients at once:
random bytes, cut and huge images, bombs, deep JSON, text that is no base64; each must get a sentence, and
the process may not grow. Latencies are wall-clock times; the load of the machine is printed.
"""

import argparse
import base64
import io
import json
import os
import platform
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facescale.gallery import Gallery, nearest_people
from facescale.gallery.enrol import enrol
from facescale.gallery.photos import embed_photos, face_finder, people_of
from facescale.inference.load import load
from facescale.inference.model import Model


@dataclass(frozen=True)
class Question:
    """One request and what the answer must hold."""

    path: str
    body: bytes
    cosine: float
    verdict: Any


def questions(model: Model, gallery: Gallery, photos: Sequence[Path], far: float) -> list[Question]:
    """Comparisons of neighbours in the list and searches, in turns."""
    threshold = model.threshold(far).cosine
    faces, left_out = embed_photos(model, photos, face_finder())
    assert not left_out, left_out
    text = {path: base64.b64encode(path.read_bytes()).decode() for path in photos}
    names, template_PD = gallery.templates()
    made = []
    for place, (path, face) in enumerate(zip(photos, faces, strict=True)):
        if place % 2:
            values = {"first": text[photos[place - 1]], "second": text[path], "far": far}
            cosine = float(faces[place - 1].embedding @ face.embedding)
            made.append(Question("compare", json.dumps(values).encode(), cosine, cosine >= threshold))
        else:
            ((best, *_),) = nearest_people(face.embedding[None], names, template_PD, 5)
            who = best.name if best.cosine >= threshold else None
            values = {"photo": text[path], "far": far}
            made.append(Question("search", json.dumps(values).encode(), best.cosine, who))
    return made


def post(port: int, path: str, body: bytes) -> tuple[int, dict[str, Any], float]:
    """Status, answer, seconds."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/{path}", body, {"Content-Type": "application/json"}
    )
    start = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            status, data = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        status, data = error.code, error.read()
    return status, json.loads(data), time.perf_counter() - start


def ask(port: int, question: Question) -> tuple[bool, float]:
    """Whether the answer is right, and seconds."""
    status, values, seconds = post(port, question.path, question.body)
    if status != 200:
        print(f"{question.path}: {status} {values}")
        return False, seconds
    cosine = values["cosine"] if question.path == "compare" else values["best"][0]["cosine"]
    verdict = values["same"] if question.path == "compare" else values["who"]
    right = abs(cosine - question.cosine) < 1e-5 and verdict == question.verdict
    if not right:
        print(f"wrong: {question.path} gave {cosine}, {verdict} for {question.cosine}, {question.verdict}")
    return right, seconds


def hostile() -> dict[str, bytes]:
    """Bodies that must be refused, by name."""
    rng = np.random.default_rng(0)

    def photo(data: bytes) -> bytes:
        text = base64.b64encode(data).decode()
        return json.dumps({"first": text, "second": text, "far": 0.01}).encode()

    def picture(form: str, size: tuple[int, int]) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", size).save(file, form)
        return file.getvalue()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    claims = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(50_000_000), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", claims) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    whole = picture("JPEG", (400, 300))
    return {
        "random bytes": photo(rng.bytes(100_000)),
        "100 megapixels": photo(picture("PNG", (10_000, 10_000))),
        "PNG bomb of 3.6 gigapixels": photo(bomb),
        "JPEG cut in the middle": photo(whole[: len(whole) // 2]),
        "HTML behind a JPEG's first bytes": photo(whole[:20] + b"<script>alert(1)</script>" * 100),
        "more bytes than allowed": photo(bytes(15_000_000)),
        "200,000 brackets": b"[" * 200_000,
        "no base64": json.dumps({"first": "../../etc/passwd", "second": "%%%", "far": 0.01}).encode(),
        "no JSON": rng.bytes(50_000),
        "nothing": b"",
    }


def memory(process: int, what: str) -> float:
    """VmRSS or VmHWM (the highest so far) of a process, MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise ValueError(f"this system does not tell {what}")


def all_at_once(clients: int, work: Sequence[Any], do: Callable[[Any], Any]) -> list[Any]:
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(do, work))


def told(what: str, answers: Sequence[tuple[bool, float]], seconds: float) -> None:
    took = 1e3 * np.array([one for _, one in answers])
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    wrong = sum(not right for right, _ in answers)
    print(
        f"{what}: {len(answers)} requests, {wrong} wrong; p50 {p50:.0f} ms, p95 {p95:.0f}, p99 {p99:.0f};"
        f" {len(answers) / seconds:.1f} a second"
    )


def start(words: Sequence[str]) -> tuple["subprocess.Popen[str]", int]:
    """The service and its port."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "facescale", "serve", *words, "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    print(process.stdout.readline().strip())
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/model", timeout=60).read()
            return process, port
        except urllib.error.URLError:
            time.sleep(0.1)
    raise RuntimeError("the service does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--far", type=float, default=0.01)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=640)
    args = parser.parse_args()
    model = load(args.model, "cpu")
    several = {name: files for name, files in people_of(args.faces).items() if len(files) > 1}
    people = dict(list(several.items())[: args.people])
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {len(people)} people")
    with tempfile.TemporaryDirectory() as folder:
        gallery = Gallery.create(
            Path(folder) / "people.gallery", model.fingerprint, model.embedding_size, str(args.model)
        )
        enrol(gallery, model, {name: files[:1] for name, files in people.items()}, find=face_finder())
        photos = [file for files in people.values() for file in files[1:3]]
        known = questions(model, gallery, photos, args.far)
        process, port = start([str(args.model), "--gallery", str(gallery.path), "--device", "cpu"])
        try:
            measure(args, process.pid, port, known)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def measure(args: argparse.Namespace, process: int, port: int, known: list[Question]) -> None:
    work = [known[place % len(known)] for place in range(args.requests)]
    for question in known[:4]:
        ask(port, question)  # the first ones build what is kept
    print(f"load {os.getloadavg()[0]:.1f}; the service holds {memory(process, 'VmRSS'):.0f} MB")
    for clients, part in ((1, work[: args.requests // 8]), (args.clients, work)):
        begun = time.perf_counter()
        answers = all_at_once(clients, part, lambda question: ask(port, question))
        told(f"{clients} client(s)", answers, time.perf_counter() - begun)
    print(f"load {os.getloadavg()[0]:.1f}; highest so far {memory(process, 'VmHWM'):.0f} MB")
    bodies = hostile()
    work = [name for name in bodies for _ in range(args.clients)]
    replies = all_at_once(args.clients, work, lambda name: _hostile_reply(port, bodies[name]))
    for name in bodies:
        found = {reply for asked, reply in zip(work, replies, strict=True) if asked == name}
        print(f"{name} ({len(bodies[name]) / 1e6:.1f} MB): {' | '.join(sorted(found))}")
    print(f"hostile uploads, {args.clients} at a time: highest so far {memory(process, 'VmHWM'):.0f} MB")
    begun = time.perf_counter()
    answers = all_at_once(args.clients, known, lambda question: ask(port, question))
    told("afterwards", answers, time.perf_counter() - begun)


def _hostile_reply(port: int, body: bytes) -> str:
    try:
        status, values, _ = post(port, "compare", body)
    except (OSError, urllib.error.URLError) as error:  # refused before the body was read to its end
        return f"connection closed ({type(error).__name__})"
    return f"{status} {values.get('error', values)}"


if __name__ == "__main__":
    main()

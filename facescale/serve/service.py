"""What the service answers, without the web: bytes of photos in, plain values out."""

import base64
import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facescale.arrays import Pixels
from facescale.gallery.gallery import Embeddings, Gallery
from facescale.gallery.people_search import PeopleSearch
from facescale.gallery.photos import FindFace, FoundFace, aligned_of_any_size, aligned_only
from facescale.gallery.search import strangers_named
from facescale.inference.model import Model
from facescale.prepare.photos import open_photo
from facescale.serve.batching import SharedCalls


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
        photo_bytes: of a photo as it is sent.
        pixels: of a photo, decoded.
        seconds: for a request to arrive, and again for its answer.
        at_once: requests that are held in memory; others wait.
    """

    photo_bytes: int = 10_000_000
    pixels: int = 24_000_000
    seconds: float = 30.0
    at_once: int = 8


class FaceService:
    """Compares and searches. Photos stay in memory while they are worked on, and nowhere else.

    Args:
        model: embeds the faces.
        find: finds and aligns the face of a photo.
        gallery: people to search for, if any; it may change while the service runs.
        limits: see `Limits`.
        keep: folder that crops of faces are written to, only if the user asked for it.
        use_index: see `PeopleSearch`.

    Raises:
        ValueError: the gallery is one of another model.
    """

    def __init__(
        self,
        model: Model,
        find: FindFace,
        gallery: Gallery | None = None,
        limits: Limits | None = None,
        keep: Path | None = None,
        use_index: bool | None = None,
    ) -> None:
        if gallery is not None:
            gallery.check_model(model.fingerprint)
        if find is aligned_only and model.contract.resize == "area":
            find = aligned_of_any_size
        self.model, self.gallery, self.limits = model, gallery, limits or Limits()
        self._find, self._keep = find, keep
        self._lock = threading.Lock()  # detectors are not all safe to share between threads
        self._shared = SharedCalls(model.embed)
        self._kept = 0
        self._use_index, self._opening = use_index, threading.Lock()
        self._search: PeopleSearch | None = None

    def about(self) -> dict[str, Any]:
        """The model: rates that it has thresholds for, and whether there is a gallery."""
        return {
            "fingerprint": self.model.fingerprint,
            "fars": sorted(self.model.thresholds),
            "people": self.gallery.num_people() if self.gallery else None,
            "photo_bytes": self.limits.photo_bytes,
        }

    def compare(self, first: bytes, second: bytes, far: float) -> dict[str, Any]:
        """Whether two photos show the same person, at a false-accept rate.

        Raises:
            ValueError: a photo cannot be used, or the model has no threshold at that rate.
        """
        threshold = self.model.threshold(far)
        faces = [self._face(data, which) for data, which in ((first, "first"), (second, "second"))]
        a_D, b_D = self._embed(faces)
        cosine = float(a_D @ b_D)
        return {
            "same": cosine >= threshold.cosine,
            "cosine": cosine,
            "threshold": threshold.cosine,
            "far": far,
            "measured_on": threshold.on,
            "crops": [_png(face.pixels) for face in faces],
            "notes": [face.note for face in faces],
        }

    def search(self, photo: bytes, far: float, top: int = 5) -> dict[str, Any]:
        """Who of the gallery a photo shows, or nobody.

        Raises:
            ValueError: there is no gallery or nobody in it, the photo cannot be used, or the model has no
                threshold at that rate.
        """
        if self.gallery is None:
            raise ValueError("this service has no gallery; start it with --gallery GALLERY")
        if not 1 <= top <= 100:
            raise ValueError(f"top = {top} must be 1 to 100 people")
        threshold = self.model.threshold(far)
        face = self._face(photo, "")
        (row_D,) = self._embed([face])
        if not self.gallery.num_people():
            raise ValueError("the gallery is empty; add people with: facescale enrol")
        (best,) = self._people(self.gallery).search(row_D[None], top)
        return {
            "who": best[0].name if best[0].cosine >= threshold.cosine else None,
            "margin": best[0].cosine - best[1].cosine if len(best) > 1 else None,
            "best": [{"name": one.name, "cosine": one.cosine} for one in best],
            "threshold": threshold.cosine,
            "far": far,
            "measured_on": threshold.on,
            "strangers_named": strangers_named(far, self.gallery.num_people()),
            "crops": [_png(face.pixels)],
            "notes": [face.note],
        }

    def _people(self, gallery: Gallery) -> PeopleSearch:
        """Opened at the first search, as a gallery may still be empty when the service starts."""
        with self._opening:
            if self._search is None:
                self._search = PeopleSearch(gallery, self._use_index)
            return self._search

    def _face(self, data: bytes, which: str) -> FoundFace:
        named = f"the {which} photo" if which else "the photo"
        if len(data) > self.limits.photo_bytes:
            raise ValueError(f"{named} has {len(data):,} bytes, more than {self.limits.photo_bytes:,}")
        try:
            photo = open_photo(data, self.limits.pixels)
            with self._lock:
                found = self._find(photo.pixels_HW3, self.model.contract.size)
        except ValueError as error:  # a photo that cannot be read is one, too
            raise ValueError(f"{named} cannot be used: {error}") from None
        if self._keep is not None:
            self._write(found.pixels, self._keep)
        return found

    def _embed(self, faces: list[FoundFace]) -> Embeddings:
        return self._shared(np.stack([face.pixels for face in faces]))

    def _write(self, pixels: Pixels, folder: Path) -> None:
        with self._lock:
            self._kept += 1
            Image.fromarray(pixels).save(folder / f"{self._kept:06d}.png")


def _png(pixels: Pixels) -> str:
    """A picture for the page, as base64."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()

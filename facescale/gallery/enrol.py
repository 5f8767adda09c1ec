"""Enrol the people of a folder, and say what is odd about their photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facescale.gallery.gallery import Face, Gallery
from facescale.gallery.photos import FindFace, embed_photos
from facescale.inference.model import Model


@dataclass
class EnrolReport:
    """What enrolling did.

    Attributes:
        people: names of those who were enrolled or got more photos.
        num_photos: photos taken.
        left_out: reason by path.
        odd: photos that are less like the person's other photos than the threshold, with their cosine.
        notes: what a person should know of a photo, by path: several faces in it, say.
    """

    people: list[str] = field(default_factory=list)
    num_photos: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    odd: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def enrol(
    gallery: Gallery,
    model: Model,
    people: Mapping[str, Sequence[Path]],
    *,
    find: FindFace,
    min_quality: float = 0.0,
    threshold: float | None = None,
) -> EnrolReport:
    """Add people to a gallery, one transaction a person.

    Args:
        gallery: where to.
        model: the one that the gallery was made with.
        people: photos by name.
        find: finds and aligns the face of a photo.
        min_quality: photos below are left out.
        threshold: cosine below which a photo is called odd among those of its person.

    Raises:
        ValueError: another model.
    """
    gallery.check_model(model.fingerprint)
    report = EnrolReport()
    for name, paths in people.items():
        faces, left_out = embed_photos(model, paths, find, report.notes)
        report.left_out |= left_out
        good = [face for face in faces if face.quality >= min_quality]
        report.left_out |= {
            face.key: f"its quality {face.quality:.2f} is below {min_quality:g}"
            for face in faces
            if face.quality < min_quality
        }
        if not good:
            continue
        gallery.add(name, good)
        report.people.append(name)
        report.num_photos += len(good)
        if threshold is not None:
            report.odd |= _odd(good, threshold)
    return report


def _odd(faces: Sequence[Face], threshold: float) -> dict[str, float]:
    """Photos whose cosine to the mean of the person's other photos is below the threshold."""
    if len(faces) < 2:
        return {}
    x_ND = np.stack([face.embedding for face in faces])
    others_ND = x_ND.sum(axis=0) - x_ND
    cosine_N = (x_ND * others_ND).sum(axis=1) / np.maximum(np.linalg.norm(others_ND, axis=1), 1e-12)
    return {face.key: float(c) for face, c in zip(faces, cosine_N, strict=True) if c < threshold}

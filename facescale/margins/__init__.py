"""Margins by name."""

from collections.abc import Callable
from typing import Any

from facescale import registry
from facescale.margins.angular import ArcFace, Circle, Combined, CosFace, SphereFace, SubCenterArcFace
from facescale.margins.base import Margin, TargetLogits
from facescale.margins.elastic import ElasticArc, ElasticCos
from facescale.margins.hard_negatives import CurricularFace, MVSoftmax, RobustFace, SVSoftmax
from facescale.margins.one_vs_all import SphereFace2, UniFace
from facescale.margins.quality import AdaFace, MagFace
from facescale.margins.unitsface import UniTSFace

MARGINS: dict[str, Callable[..., Margin]] = {
    "arcface": ArcFace,
    "cosface": CosFace,
    "combined": Combined,
    "sphereface": SphereFace,
    "sphereface2": SphereFace2,
    "subcenter_arcface": SubCenterArcFace,
    "sv_softmax": SVSoftmax,
    "mv_softmax": MVSoftmax,
    "curricular": CurricularFace,
    "magface": MagFace,
    "adaface": AdaFace,
    "elastic_arc": ElasticArc,
    "elastic_cos": ElasticCos,
    "circle": Circle,
    "uniface": UniFace,
    "unitsface": UniTSFace,
    "robustface": RobustFace,
}


def build(name: str, **options: Any) -> Margin:
    """Make the margin ``name`` with its options (``scale``, ``m``, ...; see its class).

    Raises:
        ValueError: unknown margin or option, or a value out of range.
    """
    return registry.build("margin", MARGINS, name, **options)


__all__ = ["MARGINS", "Margin", "TargetLogits", "build"]

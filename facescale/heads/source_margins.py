"""A margin of its own for the identities of each joined source."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from facescale import margins
from facescale.margins import Margin, TargetLogits

# B batch, N identities, S sources


class SourceMargins(nn.Module):
    """Target logits of each sample by the margin of its source.

    The negatives are those of the head's own margin, so all margins have its scale, and margins that weigh
    negatives, draw numbers or keep statistics of a batch cannot be had by source.

    Args:
        of_source: margins, one for each source.
        source_N: int64, source of each identity.
    """

    source_N: Tensor

    def __init__(self, of_source: Sequence[Margin], source_N: Tensor) -> None:
        super().__init__()
        self.of_source = nn.ModuleList(of_source)
        self.register_buffer("source_N", source_N, persistent=False)

    def set_strength(self, strength: float) -> None:
        """Set the share of the margins in force, 0 to 1."""
        for margin in self.of_source:
            margin.strength = strength  # type: ignore[assignment]

    def target(self, target: TargetLogits, id_B: Tensor) -> Tensor:
        """Target-class logit of each sample, (B,)."""
        source_B = self.source_N[id_B.clamp(min=0).to(self.source_N.device)]
        logit_SB = torch.stack([margin.target(target) for margin in self.of_source])  # type: ignore[operator]
        return logit_SB.gather(0, source_B[None])[0]


def build_source_margins(
    name: str, options: Mapping[str, Any], by_source: Sequence[Mapping[str, Any]], source_N: Tensor
) -> SourceMargins:
    """Make the margins of the sources.

    Args:
        name: of the margin.
        options: of the head's margin.
        by_source: options that differ, one table for each source.
        source_N: int64, source of each identity.

    Raises:
        ValueError: another number of tables than of sources, a margin that cannot be had by source, or as
            `facescale.margins.build`.
    """
    num_sources = int(source_N.max()) + 1
    if len(by_source) != num_sources:
        raise ValueError(
            f"head.margin.by_source has {len(by_source)} tables for {num_sources} sources; give one for each,"
            " such as {m = 0.3}"
        )
    plain = margins.build(name, **options)
    _check_plain(name, plain)
    built = [margins.build(name, **{**options, **others}) for others in by_source]
    for margin in built:
        if (margin.scale, margin.subcentres) != (plain.scale, plain.subcentres):
            raise ValueError("head.margin.by_source changes the scale, which all sources share; leave it out")
        _check_plain(name, margin)
    return SourceMargins(built, source_N)


def _check_plain(name: str, margin: Margin) -> None:
    one = torch.ones(1)
    try:
        keeps = bool(margin.prepare(one, one).extra)
    except ValueError:
        keeps = True
    if not margin.plain_negatives or margin.reduction != "softmax" or keeps or list(margin.parameters()):
        raise ValueError(
            f"margin '{name}' with these options depends on more than a sample's own target cosine, so it"
            " cannot differ by source; use arcface, cosface, combined, sphereface or subcenter_arcface"
        )

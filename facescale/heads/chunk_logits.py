"""Logits of a batch against one chunk of class centres, and their derivative by the cosine."""

from dataclasses import dataclass

import torch
from torch import Tensor

from facescale.heads.saved_batch import SavedBatch
from facescale.margins import Margin
from facescale.ops import Scratch

# B batch (of all processes), C classes of a chunk, R its rows (C times the sub-centres), D embedding size


@dataclass
class Chunk:
    """A chunk of classes under the margin: l = negatives(cos).

    Attributes:
        factor_RD: the rows in the precision of products, where these were not kept.
        inverse_R1: 1 / |w|.
        level_RB: cosines; products with the unit embeddings where ``out_CB`` is None.
        out_CB: l, or None where it is the cosine times the scale.
        slope: dl / dcos.
        winner_C1B: which sub-centre of a class is nearest, if it has several.
    """

    factor_RD: Tensor | None
    inverse_R1: Tensor
    level_RB: Tensor
    out_CB: Tensor | None
    slope: Tensor | float
    winner_C1B: Tensor | None = None


class ChunkLogits:
    """Evaluates ``margin.negatives`` on a chunk of rows.

    Args:
        margin: the margin.
        scratch: buffers.
        products: precision of factors and results of matrix products; everything else is float32.
    """

    def __init__(self, margin: Margin, scratch: Scratch, products: torch.dtype) -> None:
        self.margin, self._scratch, self._products = margin, scratch, products

    def evaluate(
        self, w_RD: Tensor | None, num_rows: int, first: int, saved: SavedBatch, recompute: bool
    ) -> Chunk:
        """Logits of a chunk; ``recompute`` takes products and norms from the first time, where kept."""
        margin, target = self.margin, saved.target
        start = first * margin.subcentres
        inverse_R1 = self.inverse_lengths(w_RD, num_rows, start, saved, recompute)
        factor_RD, product_RB = self._multiplied(
            w_RD, num_rows, saved.kept(start, num_rows), saved, recompute
        )
        plain = margin.plain_negatives and margin.counts is None
        if plain and margin.subcentres == 1:
            return Chunk(factor_RD, inverse_R1, product_RB, None, margin.scale)
        level_RB = self._scratch.take("level", product_RB.shape)
        torch.mul(product_RB, inverse_R1, out=level_RB)
        cos_CB, winner_C1B = level_RB, None
        if margin.subcentres > 1:
            cos_CB, winner_CB = level_RB.view(-1, margin.subcentres, len(saved.e_BD)).max(1)
            winner_C1B = winner_CB[:, None]
        if plain:
            cos_CB.mul_(margin.scale)
            return Chunk(factor_RD, inverse_R1, level_RB, cos_CB, margin.scale, winner_C1B)
        if not recompute:
            margin.observe(cos_CB.T, target)
        with torch.enable_grad():
            leaf_BC = cos_CB.T.detach().requires_grad_()
            out_BC = margin.negatives(leaf_BC, target)
            (slope_BC,) = torch.autograd.grad(out_BC.sum(), leaf_BC)
        return Chunk(factor_RD, inverse_R1, level_RB, out_BC.detach().T, slope_BC.T, winner_C1B)

    def inverse_lengths(
        self, w_RD: Tensor | None, num_rows: int, start: int, saved: SavedBatch, recompute: bool
    ) -> Tensor:
        """1 / |w| (R, 1) of rows from ``start`` on; ``recompute`` takes it from the first time, if kept."""
        if saved.inverse_N1 is None:
            inverse_R1 = self._scratch.take("norms", (num_rows, 1))
        else:
            inverse_R1 = saved.inverse_N1[start : start + num_rows]
        if w_RD is not None and (saved.inverse_N1 is None or not recompute):
            torch.linalg.vector_norm(w_RD, dim=1, keepdim=True, out=inverse_R1)
            inverse_R1.clamp_min_(1e-12).reciprocal_()
        return inverse_R1

    def _multiplied(
        self, w_RD: Tensor | None, num_rows: int, kept_RB: Tensor | None, saved: SavedBatch, recompute: bool
    ) -> tuple[Tensor | None, Tensor]:
        """The rows as factors (None where not needed), and their products (R, B) with the batch, float32."""
        product_RB, factor_RD = kept_RB, None
        if product_RB is None:
            product_RB = self._scratch.take("product", (num_rows, len(saved.e_BD)), self._products)
        if not recompute or kept_RB is None:
            assert w_RD is not None
            factor_RD = self.factor("rows", w_RD)
            torch.mm(factor_RD, saved.factor_BD.T, out=product_RB)
        if self._products is torch.float32:
            return factor_RD, product_RB
        return factor_RD, self._scratch.take("product", product_RB.shape).copy_(product_RB)

    def factor(self, name: str, x: Tensor) -> Tensor:
        """``x`` as a factor of a product."""
        if x.dtype is self._products:
            return x
        return self._scratch.take(f"{name} to multiply", x.shape, self._products).copy_(x)


def to_rows(weight_CB: Tensor, chunk: Chunk) -> Tensor:
    """Weights (R, B) of rows from those of classes: all of it to the nearest sub-centre."""
    if chunk.winner_C1B is None:
        return weight_CB
    weight_CKB = torch.zeros_like(chunk.level_RB).view(len(weight_CB), -1, weight_CB.shape[1])
    return weight_CKB.scatter_(1, chunk.winner_C1B, weight_CB[:, None]).view_as(chunk.level_RB)

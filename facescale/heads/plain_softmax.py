"""The softmax of scaled cosines against one chunk of class centres at a time, by one number a cell."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from facescale.heads.chunked_softmax import ChunkedSoftmax, Push
from facescale.heads.saved_batch import SavedBatch
from facescale.heads.softmax import NOTHING, is_bounded, is_plain
from facescale.margins import Margin
from facescale.ops import Scratch

# B batch (of all processes), K target cells of a chunk, R its rows, D embedding size

_SAMPLES = 256  # that are compared with all others at a time


class PlainSoftmax(ChunkedSoftmax):
    """What ``ChunkedSoftmax`` computes, where the logits are scaled cosines that need no shift.

    Everything follows from the weights v_cb = exp(s cos_bc) / |w_c|, 0 where c is the target class of b:
        exp(value_b)       sum_c v_cb |w_c|
        grad_embedding_b   s sum_c v_cb w_c / exp(value_b)
        gradient of row c  the part across w_c of sum_b v_cb f_b e_b, f_b = s grad_value_b / exp(value_b)
    and, for the target class of b, grad_target_b / |w_c| in place of v_cb f_b. The weights of rows that the
    batch has room for are kept: they are multiplied as they are, and nothing else of the rows is read.
    """

    @staticmethod
    def takes(margin: Margin) -> bool:
        """Whether the logits are such ones."""
        return is_plain(margin) and is_bounded(margin) and margin.subcentres == 1

    def forward(
        self, saved: SavedBatch, chunks: Iterable[tuple[int, Tensor]], with_grad: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``ChunkedSoftmax.forward``."""
        pull_BD = torch.zeros_like(saved.e_BD, dtype=torch.float32)
        sum_B = pull_BD.new_zeros(len(pull_BD))
        for first, w_RD in chunks:
            factor_RD = self._logits.factor("rows", w_RD)
            wide_RB, inverse_R1 = self._weigh(w_RD, factor_RD, first, saved, recompute=False)
            sum_B.addmv_(wide_RB.T, inverse_R1[:, 0].reciprocal())
            weight_RB = self._narrowed(wide_RB, first, saved)
            if with_grad:
                pull_BD += torch.mm(weight_RB.T, factor_RD)  # faster than addmm_
        return torch.zeros_like(sum_B), sum_B, pull_BD.mul_(self.margin.scale)

    def pushes(self, batches: Sequence[SavedBatch], loss_scale: float) -> list[Push]:
        """See ``ChunkedSoftmax.pushes``: f_b e_b, and the sum of grad_target_b e_b over the class of b."""
        made = []
        for saved, push in zip(batches, super().pushes(batches, loss_scale), strict=True):
            factor_B = saved.value_B.neg().exp_().mul_(push.value * self.margin.scale)
            factor_B = torch.where(saved.value_B > NOTHING, factor_B, 0.0)  # no negative: 0, and not infinity
            each_BD = (saved.e_BD * factor_B[:, None]).to(saved.factor_BD.dtype)
            of_classes = (some_K[:, None] == saved.place_B for some_K in saved.place_B.split(_SAMPLES))
            target_BD = torch.cat([(of_class_KB * push.target) @ saved.e_BD for of_class_KB in of_classes])
            made.append(Push(saved, each_BD, target_BD))
        return made

    def gradient(self, w_RD: Tensor | None, num_rows: int, first: int, pushes: Sequence[Push]) -> Tensor:
        """See ``ChunkedSoftmax.gradient``."""
        grad_RD: Tensor | None = None
        for push in pushes:
            weight_RB, inverse_R1 = self._again(w_RD, num_rows, first, push.saved)
            grad_RD = self._product(weight_RB, push.value, grad_RD)
            if cells := push.saved.target_cells(first, num_rows):
                class_K, sample_K = cells  # several samples of a class write the same row
                own_KD = push.target[sample_K].mul_(inverse_R1[class_K])
                grad_RD[class_K] = own_KD.add_(grad_RD[class_K]).to(grad_RD.dtype)
        assert grad_RD is not None
        return grad_RD

    def parameter_gradients(
        self, saved: SavedBatch, chunks: Iterable[tuple[int, Tensor]], parameters: Sequence[Tensor]
    ) -> list[Tensor]:
        """See ``ChunkedSoftmax.parameter_gradients``: scaled cosines depend on none."""
        return [torch.zeros_like(p) for p in parameters]

    def _weigh(
        self, w_RD: Tensor, factor_RD: Tensor, first: int, saved: SavedBatch, recompute: bool
    ) -> tuple[Tensor, Tensor]:
        """The weights of a chunk in float32, and 1 / |w|."""
        inverse_R1 = self._logits.inverse_lengths(w_RD, len(w_RD), first, saved, recompute)
        shape = len(w_RD), len(saved.e_BD)
        wide_RB = saved.kept(first, len(w_RD)) if self._products is torch.float32 else None
        if wide_RB is None:
            wide_RB = self._scratch.take("logits", shape)
        if self._products is torch.float32:
            torch.mm(factor_RD, saved.factor_BD.T, out=wide_RB)
        else:
            product_RB = self._scratch.take("product", shape, self._products)
            wide_RB.copy_(torch.mm(factor_RD, saved.factor_BD.T, out=product_RB))
        wide_RB.mul_(inverse_R1 * self.margin.scale).exp_().mul_(inverse_R1)
        if cells := saved.target_cells(first, len(w_RD)):
            wide_RB[cells] = 0.0
        return wide_RB, inverse_R1

    def _narrowed(self, wide_RB: Tensor, first: int, saved: SavedBatch) -> Tensor:
        """Weights as factors of a product, kept if there is room."""
        kept_RB = saved.kept(first, len(wide_RB))
        if kept_RB is None or kept_RB.data_ptr() == wide_RB.data_ptr():
            return self._logits.factor("weights", wide_RB)
        return kept_RB.copy_(wide_RB)

    def _again(
        self, w_RD: Tensor | None, num_rows: int, first: int, saved: SavedBatch
    ) -> tuple[Tensor, Tensor]:
        """The weights of a chunk as factors, kept or computed a second time, and 1 / |w|."""
        kept_RB = saved.kept(first, num_rows)
        if kept_RB is not None:
            assert saved.inverse_N1 is not None
            return kept_RB, saved.inverse_N1[first : first + num_rows]
        assert w_RD is not None
        wide_RB, inverse_R1 = self._weigh(w_RD, self._logits.factor("rows", w_RD), first, saved, True)
        if saved.member_C is not None:
            wide_RB.mul_(saved.member_C[first : first + num_rows, None])
        return self._narrowed(wide_RB, first, saved), inverse_R1


def softmax_for(margin: Margin, scratch: Scratch, products: torch.dtype) -> ChunkedSoftmax:
    """The faster of the two for a margin; arguments as those of ``ChunkedSoftmax``."""
    kind = PlainSoftmax if PlainSoftmax.takes(margin) else ChunkedSoftmax
    return kind(margin, scratch, products)

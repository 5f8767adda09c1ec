"""Optimizers that move a few rows of a large matrix and leave all others alone."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from facescale.centres.layout import RowField

# R rows at hand, D embedding size


class RowRule(Protocol):
    """How rows move.

    Attributes:
        coupled_decay: weight decay that the caller adds to the gradient (as L2 regularisation).
    """

    coupled_decay: float

    def fields(self, dim: int, dtype: torch.dtype) -> list[RowField]:
        """What is kept per row beside the row."""

    def gradient_into(self, block: Mapping[str, Tensor]) -> tuple[Tensor | None, float]:
        """A tensor to add the gradient to, and a factor on what it holds before; None is a new tensor."""

    def step(self, block: Mapping[str, Tensor], grad_RD: Tensor, lr: float) -> None:
        """Move ``work["rows"]`` and its state in place; ``grad_RD`` is what ``gradient_into`` became."""


class RowSGD:
    """SGD as torch.optim.SGD, for the rows at hand only.

    m <- momentum m + g + decay w, then w <- w - lr m, or in Nesterov's form
    w <- w - lr (g + decay w + momentum m).

    Args:
        momentum: from 0 to below 1.
        weight_decay: added to the gradient by the caller.
        nesterov: see above.

    Raises:
        ValueError: momentum out of range, or Nesterov's form without momentum.
    """

    def __init__(self, momentum: float, weight_decay: float, nesterov: bool = False) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum of the class centres is {momentum}; it must be from 0 to below 1")
        if nesterov and not momentum:
            raise ValueError(
                "nesterov of the class centres is true and momentum 0; give a momentum (0.9), or leave out "
                "nesterov"
            )
        self.momentum, self.nesterov = momentum, nesterov
        self.coupled_decay = weight_decay

    def fields(self, dim: int, dtype: torch.dtype) -> list[RowField]:
        """Momentum, unless it is 0."""
        return [RowField("momentum", dim, dtype)] if self.momentum else []

    def gradient_into(self, block: Mapping[str, Tensor]) -> tuple[Tensor | None, float]:
        """The momentum: m <- momentum m + gradient, inside the product that makes the gradient.

        Nesterov's form needs the gradient itself, too.
        """
        if self.nesterov:
            return None, 0.0
        return block.get("momentum"), self.momentum

    def step(self, block: Mapping[str, Tensor], grad_RD: Tensor, lr: float) -> None:
        """See ``RowRule.step``."""
        block["rows"].add_(grad_RD, alpha=-lr)
        if self.nesterov:
            momentum_RD = block["momentum"].mul_(self.momentum).add_(grad_RD)
            block["rows"].add_(momentum_RD, alpha=-lr * self.momentum)


class RowAdamW:
    """AdamW for the rows at hand only, each with its own step count in the bias correction.

    A row that is first sampled late thus makes the same first steps as one that was sampled at once.

    Args:
        weight_decay: decoupled.
        betas: decay of the first and the second moment, from 0 to below 1.
        eps: added to the root of the second moment.

    Raises:
        ValueError: betas out of range.
    """

    coupled_decay = 0.0

    def __init__(
        self, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"betas of the class centres are {betas}; give two numbers from 0 to below 1 (0.9 and 0.999)"
            )
        self.weight_decay, self.betas, self.eps = weight_decay, betas, eps

    def fields(self, dim: int, dtype: torch.dtype) -> list[RowField]:
        """Two moments and a count."""
        return [
            RowField("exp_avg", dim, dtype),
            RowField("exp_avg_sq", dim, dtype),
            RowField("steps", 1, torch.int32),
        ]

    def gradient_into(self, block: Mapping[str, Tensor]) -> tuple[Tensor | None, float]:
        """Nothing: the second moment needs the gradient itself."""
        return None, 0.0

    def step(self, block: Mapping[str, Tensor], grad_RD: Tensor, lr: float) -> None:
        """See ``RowRule.step``."""
        beta1, beta2 = self.betas
        m_RD, v_RD, steps_R1 = block["exp_avg"], block["exp_avg_sq"], block["steps"]
        steps_R1.add_(1)
        m_RD.lerp_(grad_RD, 1 - beta1)
        v_RD.mul_(beta2).addcmul_(grad_RD, grad_RD, value=1 - beta2)
        correct1_R1 = 1 - torch.pow(beta1, steps_R1.double())
        correct2_R1 = 1 - torch.pow(beta2, steps_R1.double())
        torch.sqrt(v_RD, out=grad_RD)
        grad_RD.div_(correct2_R1.sqrt().float()).add_(self.eps)
        torch.div(m_RD, grad_RD, out=grad_RD)
        grad_RD.mul_((-lr / correct1_R1).float())
        block["rows"].mul_(1 - lr * self.weight_decay).add_(grad_RD)


class DenseSteps:
    """What dense SGD would have done to rows in the steps that did not read them.

    Without a gradient, a step with rate lr turns (m, w) into A (m, w), A = [[mu, wd], [-lr mu, 1 - lr wd]]
    (Nesterov's form: [-lr mu^2, 1 - lr wd (1 + mu)] below).
    The product of all A since a row was last moved catches it up at once, so that the result equals
    torch.optim.SGD over the whole matrix. The products for every starting step are kept and multiplied by A
    in each step: four numbers for each step of the run, about 1 ms at 500,000 steps. A checkpoint holds the
    products and rows that are not caught up: when a row is, and thus how it is rounded, follows from the
    steps alone, wherever the run was interrupted.

    Args:
        rule: momentum, weight decay and form.
        device: where rows are caught up; the products are there, too, so that nothing waits for it.

    Raises:
        ValueError: ``rule`` is not SGD.
    """

    def __init__(self, rule: RowRule, device: torch.device | None = None) -> None:
        if not isinstance(rule, RowSGD):
            raise ValueError(
                "decay 'dense' is known for optimizer 'sgd' only (what AdamW does to rows without gradient "
                "is not a linear step); use decay 'sampled'"
            )
        self._momentum, self._decay = rule.momentum, rule.coupled_decay
        # Factors of the momentum and of the row in lr times the step
        self._of_momentum = rule.momentum**2 if rule.nesterov else rule.momentum
        self._of_row = rule.coupled_decay * (1 + rule.momentum if rule.nesterov else 1)
        self.now = 0
        self._products_4T = torch.zeros(4, 1024, dtype=torch.float64, device=device)

    def add(self, lr: float) -> None:
        """Count one more step with rate ``lr``."""
        if self.now == self._products_4T.shape[1]:
            room_4T = self._products_4T.new_zeros(4, max(1024, self.now))
            self._products_4T = torch.cat([self._products_4T, room_4T], 1)
        mu, decay = self._momentum, self._decay
        self._products_4T[::3, self.now] = 1  # the identity; the rest of the new column is 0
        self.now += 1
        mm, mw, wm, ww = self._products_4T[:, : self.now]
        new_mm, new_mw = mu * mm + decay * wm, mu * mw + decay * ww
        self._products_4T[2, : self.now] = wm * (1 - lr * self._of_row) - lr * self._of_momentum * mm
        self._products_4T[3, : self.now] = ww * (1 - lr * self._of_row) - lr * self._of_momentum * mw
        self._products_4T[0, : self.now], self._products_4T[1, : self.now] = new_mm, new_mw

    @property
    def products(self) -> Tensor:
        """The products so far, for a checkpoint; float64, a column for each step to start from."""
        return self._products_4T[:, : self.now].to("cpu", copy=True)

    def restore(self, products_4T: Tensor) -> None:
        """Take over ``products`` of a checkpoint."""
        self._products_4T, self.now = (
            products_4T.to(self._products_4T.device, copy=True),
            products_4T.shape[1],
        )

    def catch_up(self, block: Mapping[str, Tensor]) -> None:
        """Bring ``rows`` and ``momentum`` of ``block`` from step ``last`` to now, in place."""
        catch_up(self._products_4T[:, : self.now], block)


def catch_up(products_4T: Tensor, block: Mapping[str, Tensor]) -> None:
    """Bring ``rows`` and ``momentum`` of ``block`` from step ``last`` to T, in place.

    Args:
        products_4T: see ``DenseSteps.products``.
        block: rows of a store with dense decay, in float32.
    """
    now = products_4T.shape[1]
    if now == 0:
        return
    w_RD, m_RD = block["rows"], block.get("momentum")
    last_R = block["last"][:, 0].long().to(products_4T.device)
    block["last"].fill_(now)
    behind_R1 = (last_R < now)[:, None]
    unchanged_41 = products_4T.new_zeros(4, 1)
    unchanged_41[::3] = 1
    product_4R = products_4T[:, last_R.clamp(max=now - 1)]
    product_4R = torch.where(behind_R1.T, product_4R, unchanged_41)
    mm, mw, wm, ww = (x[:, None] for x in product_4R.to(w_RD.device, w_RD.dtype))
    if m_RD is None:
        w_RD.mul_(ww)
        return
    old_RD = w_RD.clone()
    w_RD.mul_(ww).addcmul_(m_RD, wm)
    m_RD.mul_(mm).addcmul_(old_RD, mw)

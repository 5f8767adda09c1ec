"""Partial FC: each step compares with the batch's target classes and a sample of the negatives."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from facescale.centres.options import StoreOptions, takes_store_options
from facescale.distributed import Dist
from facescale.heads.base import Bytes
from facescale.heads.centre_head import CentreHead
from facescale.heads.negative_sampler import NegativeSampler
from facescale.margins import Margin


@takes_store_options
class PartialFCHead(CentreHead):
    """Margin loss over the batch's target classes and sampled others (An et al., Partial FC, CVPR 2022).

    Only the rows of these classes are read, computed with and written. Say how many they are with one of
    ``rate`` (share of each process's classes, target classes included, as in the paper) and ``num_negatives``
    (number of others over all processes). With rate 0, classes are compared with those of the batch only.
    If a batch has more target classes than rate allows for, it is compared with these.

    By default a row that is not sampled rests: its momentum and decay wait with it. That is what the method
    says; the released code moves every row in every step, by decay and momentum, which ``decay="dense"``
    does too (at no cost per row: rows are caught up when they are next read).

    Source: https://arxiv.org/abs/2203.15565

    Example:
        >>> head = facescale.heads.build("partial_fc", 1000, 16, "arcface", rate=0.1)
        >>> q_VBD = torch.randn(1, 8, 16, requires_grad=True)  # one view of 8 images
        >>> loss = head(q_VBD, torch.arange(8)).loss  # over 100 of the 1000 classes
        >>> loss.backward()
        >>> head.after_step(lr=0.1)  # these 100 rows move

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines. Its ``interclass_filter`` is Partial FC's filter of conflicting
            labels: classes above that cosine leave the softmax (their cosine becomes 0 under the margin's
            ``compat``).
        dist: this process among its peers.
        rate: share of the classes, 0 to 1. Several take turns, each for an equal part of the training:
            [0.1, 0.3, 1] ends with all classes (stages as in LVFace, arXiv 2501.13420).
        num_negatives: other classes per step over all processes, instead of ``rate``.
        decay: "sampled" or "dense"; "dense" is also the default under ``compat``.
        products: precision of matrix products: "auto", "float32" or "bfloat16".
        chunk: classes evaluated at a time; 0 is a good size for the device.
        compat: as released: -log p is cut at 69.08, identities that are -1 count; see ``CentreHead``.
        seed: seed of the start values and the samples.
        **store: see ``StoreOptions``.

    Raises:
        ValueError: an option out of range, or options that do not go together.
    """

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        margin: Margin,
        dist: Dist,
        *,
        rate: float | list[float] | None = None,
        num_negatives: int | None = None,
        decay: Literal["sampled", "dense"] | None = None,
        products: Literal["auto", "float32", "bfloat16"] = "auto",
        chunk: int = 0,
        compat: bool = False,
        seed: int = 0,
        **store: Any,
    ) -> None:
        if rate is not None and num_negatives is not None:
            raise ValueError(
                f"partial_fc got rate={rate} and num_negatives={num_negatives}; give one of them"
            )
        rates = _rates(0.1 if rate is None and num_negatives is None else rate)
        if num_negatives is not None and num_negatives < 1:
            raise ValueError(
                f"num_negatives of partial_fc is {num_negatives}; it must be positive (rate=0 compares with "
                "the classes of the batch only)"
            )
        decay = decay or ("dense" if compat else "sampled")
        if decay not in ("sampled", "dense"):
            raise ValueError(f"decay of partial_fc is '{decay}'; choose one of: sampled, dense")
        super().__init__(
            num_ids,
            embedding_size,
            margin,
            dist,
            products=products,
            chunk=chunk,
            compat=compat,
            seed=seed,
            store=StoreOptions(**store),
            dense_decay=any(one != 1 for one in rates or [0]) and decay == "dense",
        )
        self.rates, self.num_negatives = rates, num_negatives
        self.sampler = NegativeSampler(
            self.store.stop_id - self.store.first_id,
            _share(num_negatives or 0, dist),
            extra_positives=num_negatives is not None,
            seed=seed,
            shard=dist.rank,
        )
        self._set_rate(rates[0] if rates else None)

    def begin_step(self, progress: float, strength: float, loss_scale: float) -> None:
        """See ``ClassHead.begin_step``; the rate follows ``progress``."""
        super().begin_step(progress, strength, loss_scale)
        if self.rates:
            rate = self.rates[min(int(progress * len(self.rates)), len(self.rates) - 1)]
            if rate != self.rate:
                self._set_rate(rate)

    def _set_rate(self, rate: float | None) -> None:
        self.rate = rate
        if rate is not None:
            self.sampler.want(int(rate * self.sampler.num_classes))
        wanted = self.sampler.num_wanted
        self.margin.set_num_negatives(max(1, min(self.num_ids - 1, wanted * self.dist.world_size)))

    def select(self, local_G: Tensor) -> Tensor | None:
        """See ``CentreHead.select``."""
        if self.rate == 1:
            return None
        positives = np.unique(local_G[local_G >= 0].numpy())
        return torch.from_numpy(self.sampler.select(positives, self.step))

    def bytes_needed(self, batch_size: int) -> Bytes:
        """See ``ClassHead.bytes_needed``: at the rate that takes most."""
        if self.rates is None:
            return super().bytes_needed(batch_size)
        now, needed = self.rate, []
        for rate in self.rates:
            self._set_rate(rate)
            needed.append(super().bytes_needed(batch_size))
        self._set_rate(now)
        return max(needed, key=lambda one: one.device + one.host + one.transient)

    def num_selected(self, batch: int) -> int | None:
        """See ``CentreHead.num_selected``."""
        if self.rate == 1:
            return None
        wanted = self.sampler.num_wanted
        return min(self.sampler.num_classes, wanted + batch if self.num_negatives else max(wanted, batch))

    def expected_classes(self, step: int) -> Tensor | None:
        """See ``CentreHead.expected_classes``."""
        return None if self.rate == 1 else torch.from_numpy(self.sampler.window(step))


def _rates(rate: float | list[float] | None) -> list[float] | None:
    """The rates of a training, in order."""
    if rate is None:
        return None
    rates = rate if isinstance(rate, list) else [rate]
    if not rates or not all(0 <= one <= 1 for one in rates):
        raise ValueError(
            f"rate of partial_fc is {rate}; it is a share from 0 to 1 (0.1 is usual), or a list of shares"
        )
    return rates


def _share(total: int, dist: Dist) -> int:
    """This process's part of a number."""
    start, stop = dist.shard(total)
    return stop - start

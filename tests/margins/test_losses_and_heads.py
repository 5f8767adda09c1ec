"""Every loss with every head: it trains, equals the dense loss where the head is exact, or is refused."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale import heads, margins
from facescale.heads import HEADS, ClassHead
from facescale.margins import MARGINS, Margin

NUM_IDS, DIM = 40, 8
IDS = torch.tensor([3, 3, 17, 9, 39, 0, 17, 21])  # identities 3 and 17 are there twice

WORKING = [(loss, head) for head in HEADS for loss in MARGINS if head not in MARGINS[loss].refuses]
REFUSED = [(loss, head) for loss in MARGINS for head in MARGINS[loss].refuses]
EXACT = [(loss, head) for loss, head in WORKING if head in ("full", "partial_fc")]


def embeddings(num_views: int, seed: int = 0) -> Tensor:
    """Raw embeddings (V, B, D) with norms around 20, alike where the identity is the same."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.randn(NUM_IDS, DIM, generator=generator)[IDS]
    return 7 * (people + 0.3 * torch.randn(num_views, len(IDS), DIM, generator=generator))


OPTIONS: dict[str, dict[str, Any]] = {
    "partial_fc": {"rate": 0.5},
    "attfc": {"share": 1.0, "unique": True, "fresh": True},
    "f2c": {"share": 0.5},
}
# Rate of the embeddings; where the centres are given by the twin, here fixed, only the embeddings move.
RATES = {"attfc": 3.0, "f2c": 1.0}


def step(head: ClassHead, q_VBD: Tensor, k_VBD: Tensor | None, rate: float) -> float:
    """Forward, backward, and one descent step of embeddings, learned biases and whatever the head keeps."""
    loss = head(q_VBD, IDS, k_VBD).loss
    loss.backward()
    with torch.no_grad():
        for x, lr in ((q_VBD, rate), *((p, 0.01) for p in head.parameters())):
            if x.grad is not None:
                assert x.grad.isfinite().all()
                x -= lr * x.grad
                x.grad = None
    head.after_step(1e-5)  # centres start with norm 0.03, where gradients are large
    return loss.item()


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
@pytest.mark.parametrize(("loss", "name"), WORKING)
def test_a_loss_trains_in_every_precision_on_every_head_it_works_with(
    loss: str, name: str, products: str
) -> None:
    torch.manual_seed(0)
    head = heads.build(name, NUM_IDS, DIM, loss, products=products, **OPTIONS.get(name, {}))
    q_VBD = embeddings(head.needs.query_views).requires_grad_()
    k_VBD = embeddings(head.needs.key_views, 1) if head.needs.key_views else None
    losses = [step(head, q_VBD, k_VBD, RATES.get(name, 0.1)) for _ in range(12)]
    assert all(torch.tensor(losses).isfinite())
    assert max(losses[-3:]) < 0.8 * losses[0]
    assert all(value.isfinite().all() for value in head.margin.state_dict().values())


def dense_loss(margin: Margin, e_BD: Tensor, w_RD: Tensor) -> Tensor:
    """The loss against all classes at once, from ``Margin.forward``."""
    cos_BC = (F.normalize(e_BD) @ F.normalize(w_RD).T).view(len(IDS), NUM_IDS, -1).amax(2)
    norm_B = e_BD.norm(dim=1)
    out_BC = margin(cos_BC, IDS, norm_B)
    loss = F.cross_entropy(out_BC, IDS) if margin.reduction == "softmax" else out_BC.sum(1).mean()
    for term in (margin.penalty(norm_B), margin.batch_term(e_BD, IDS)):
        loss = loss if term is None else loss + term
    return loss


def near(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-7)


@pytest.mark.parametrize("options", [{}, {"interclass_filter": 0.3}], ids=["plain", "filtered"])
@pytest.mark.parametrize(("loss", "name"), EXACT)
def test_chunked_heads_equal_the_dense_loss_in_value_and_in_every_gradient(
    loss: str, name: str, options: dict[str, float]
) -> None:
    rate = {"rate": 1.0} if name == "partial_fc" else {}
    head = heads.build(
        name,
        NUM_IDS,
        DIM,
        margins.build(loss, **options),
        chunk=7,
        momentum=0.0,
        weight_decay=0.0,
        products="float32",
        **rate,
    )
    everything = slice(0, head.store.num_rows)
    for seed in range(3):  # the state of the margin moves on as well
        dense = copy.deepcopy(head.margin).double()
        w_RD = head.store.open(everything).rows_RD.double().clone().requires_grad_()
        e_BD = embeddings(1, seed)[0].double().requires_grad_()
        expected = dense_loss(dense, e_BD, w_RD)
        expected.backward()

        q_VBD = embeddings(1, seed).requires_grad_()
        head.zero_grad()
        actual = head(q_VBD, IDS).loss
        actual.backward()
        assert near(actual, expected)
        assert near(q_VBD.grad[0], e_BD.grad)
        for ours, theirs in zip(head.margin.parameters(), dense.parameters(), strict=True):
            assert near(ours.grad, theirs.grad)
            with torch.no_grad():
                ours -= 0.1 * ours.grad  # the optimizer's step comes before the rows'
        head.after_step(lr=0.01)
        moved_RD = (w_RD.detach() - head.store.open(everything).rows_RD) / 0.01
        assert near(moved_RD, w_RD.grad)
        for key, value in dense.state_dict().items():
            if not isinstance(dict(dense.named_parameters()).get(key), nn.Parameter):
                assert near(head.margin.state_dict()[key].double(), value.double()), key


@pytest.mark.parametrize(("loss", "name"), REFUSED)
def test_a_loss_that_does_not_work_with_a_head_is_refused_with_the_reason(loss: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"does not work with head '{name}': it"):
        heads.build(name, NUM_IDS, DIM, loss)

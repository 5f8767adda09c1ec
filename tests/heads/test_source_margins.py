"""A margin of its own for the identities of each source, with every head."""

import pytest
import torch
import torch.nn.functional as F

from facescale import heads, margins
from facescale.heads.source_margins import build_source_margins
from tests.heads.slot_heads import DIM, NUM_IDS, draw

SOURCES = torch.arange(NUM_IDS) % 2
OPTIONS = {"full": {}, "partial_fc": {"rate": 0.5}, "attfc": {"share": 1.0}, "f2c": {"share": 1.0}}


def loss_of(name: str, margin: str, by_source: list[dict] | None, seed: int = 0, strength: float = 1.0):
    head = heads.build(name, NUM_IDS, DIM, margins.build(margin, scale=8.0), **OPTIONS[name])
    if by_source is not None:
        head.source_margins = build_source_margins(margin, {"scale": 8.0}, by_source, SOURCES)
    head.begin_step(0.0, strength, 1.0)
    q_VBD, ids, k_VBD = draw(seed, 2, 8)
    if name != "f2c":
        q_VBD, ids = q_VBD[:1], ids[0]
    keys = k_VBD if head.needs.key_views else None
    q_VBD.requires_grad_()
    torch.manual_seed(0)
    for _ in range(2):  # the slot heads have classes to compare with from the second step on
        loss = head(q_VBD, ids, keys).loss
        loss.backward()
        head.after_step(0.0)
    return loss.detach()


@pytest.mark.parametrize("name", heads.HEADS)
def test_equal_margins_are_the_heads_own(name: str):
    plain = loss_of(name, "arcface", None)
    assert torch.equal(loss_of(name, "arcface", [{}, {"m": 0.5}]), plain)
    assert loss_of(name, "arcface", [{"m": 0.1}, {"m": 0.1}]) < plain


@pytest.mark.parametrize("name", heads.HEADS)
def test_each_source_has_its_own(name: str):
    low, high = ([{"m": m}, {"m": m}] for m in (0.1, 0.6))
    first, second = (loss_of(name, "cosface", one) for one in ([low[0], high[0]], [high[0], low[0]]))
    assert loss_of(name, "cosface", low) < min(first, second) and max(first, second) < loss_of(
        name, "cosface", high
    )
    assert first != second
    assert torch.equal(
        loss_of(name, "cosface", high, strength=0.0), loss_of(name, "cosface", low, strength=0.0)
    )


def test_the_loss_of_full_softmax_is_that_of_the_formula():
    head = heads.build("full", NUM_IDS, DIM, margins.build("cosface", scale=8.0))
    head.source_margins = build_source_margins("cosface", {"scale": 8.0}, [{"m": 0.1}, {"m": 0.4}], SOURCES)
    q_VBD, ids, _ = draw(3, 2, 8)
    id_B = ids[0]
    cos_BC = F.normalize(q_VBD[0]) @ F.normalize(head.read_rows(torch.arange(NUM_IDS))).T
    m_B = torch.tensor([0.1, 0.4])[SOURCES[id_B]]
    logits_BC = 8 * (cos_BC - F.one_hot(id_B, NUM_IDS) * m_B[:, None])
    expected = F.cross_entropy(logits_BC, id_B).item()
    assert head(q_VBD, id_B).loss.item() == pytest.approx(expected, rel=1e-3), "products may be bf16"


@pytest.mark.parametrize(
    ("name", "by_source", "sentence"),
    [
        ("arcface", [{}], r"by_source has 1 tables for 2 sources; give one for each, such as \{m = 0.3\}"),
        ("arcface", [{}, {"scale": 3.0}], "by_source changes the scale, which all sources share"),
        ("arcface", [{}, {"mm": 1.0}], "margin 'arcface' has no option 'mm'"),
        ("adaface", [{}, {}], "margin 'adaface' with these options depends on more than"),
        ("curricular", [{}, {}], "cannot differ by source; use arcface, cosface"),
        ("elastic_arc", [{}, {}], "cannot differ by source"),
        ("uniface", [{}, {}], "cannot differ by source"),
        ("arcface", [{}, {"interclass_filter": 0.5}], "cannot differ by source"),
    ],
)
def test_margins_that_cannot_be_had_by_source_are_refused(name: str, by_source: list[dict], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        build_source_margins(name, {}, by_source, SOURCES)

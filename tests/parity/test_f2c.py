"""F2C's released bookkeeping and step, golden section E: LRU traces, both passes, pool, nets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facescale import margins
from facescale.distributed import Dist
from facescale.heads.f2c import F2CHead
from facescale.heads.f2c_pool import Writes
from facescale.ops import unit
from facescale.pools import LruPool
from facescale.train.twin import Twin

MARGINS = {"AM": ("cosface", {}), "Arc": ("arcface", {}), "SV": ("sv_softmax", {"compat": True})}


def near(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def test_the_pool_does_what_the_released_lru_does_operation_by_operation(golden: Path) -> None:
    traces = json.loads((golden / "E_lru_traces.json").read_text())
    assert len(traces) == 40
    for trace in traces:
        pool = LruPool(trace["capacity"])
        for name, argument, expected, after in trace["ops"]:
            if name == "dump_and_restore_into_new":
                state, pool = pool.state(), LruPool(trace["capacity"])
                pool.restore(state)
            elif name == "rollback":
                pool.rollback(argument)
            else:
                assert getattr(pool, name)(np.array([argument]))[0] == expected
            state = pool.state()
            assert np.stack([state["ids"], state["slots"]], 1).tolist() == after


class Recording(F2CHead):
    """Keeps what each pass has computed."""

    def _pass(self, x_GD: Tensor, id_G: Any, g_GD: Tensor, gallery_id_G: Any) -> tuple[Tensor, Writes, Any]:
        result = super()._pass(x_GD, id_G, g_GD, gallery_id_G)
        cosines = []
        for view in self._views(result[1], g_GD):
            rows_SD = torch.cat([rows_CD for rows_CD, _ in view.chunks(None)])
            cosines.append(unit(x_GD) @ rows_SD.T)
        self.seen = [*getattr(self, "seen", [])[-1:], (self.pool.view(id_G), cosines, result[0])]
        return result


@pytest.mark.parametrize("variant", ["AM", "Arc", "SV", "AM_scale8"])
def test_every_step_of_the_released_training_is_reproduced(golden: Path, variant: str) -> None:
    spec = json.loads((golden / "E_ffc_trace.json").read_text())[variant]
    arrays = np.load(golden / "E_ffc_trace.npz")

    def trace(name: str) -> Tensor:
        return torch.from_numpy(arrays[f"{variant}/{name}"])

    probe = nn.Sequential(nn.Flatten(), nn.Linear(48, 16))
    layer = probe[1]
    with torch.no_grad():
        layer.weight.copy_(trace("init/weight"))
        layer.bias.copy_(trace("init/bias"))
    twin = Twin(probe, momentum=spec["momentum"])
    name, options = MARGINS[spec["loss_type"]]
    margin = margins.build(name, scale=spec["scale"], m=spec["margin"], **options)
    head = Recording(
        spec["identities"],
        16,
        margin,
        Dist(),
        size=spec["queue_size"],
        hard=spec["hard_neg"],
        compat=True,
        products="float32",
        chunk=5,
    )
    head.rows.copy_(trace("init/queue"))
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for number, after in enumerate(spec["steps"]):
        step = f"step{number:02d}"
        x, y = trace(f"{step}/x"), trace(f"{step}/y")
        ids = torch.stack([trace(f"{step}/x_label"), trace(f"{step}/y_label")])
        q_VBD = torch.stack([probe(x), probe(y)])
        twin.update(probe)
        out = head(q_VBD, ids, torch.stack([twin(x), twin(y)]))
        for kind, (slots, cosines, loss) in zip(("rollback", "commit"), head.seen, strict=True):
            assert torch.equal(torch.from_numpy(slots), trace(f"{step}/slots_{kind}"))
            assert near(cosines[0], trace(f"{step}/cos_{kind}_row0"))
            assert near(cosines[1], trace(f"{step}/cos_{kind}_mixed"))
            assert near(loss, trace(f"{step}/loss_{kind}_pass"))
        assert near(out.loss, trace(f"{step}/loss"))
        optimizer.zero_grad()
        out.loss.backward()
        assert near(layer.weight.grad, trace(f"{step}/grad_weight"))
        assert near(layer.bias.grad, trace(f"{step}/grad_bias"))
        optimizer.step()
        head.after_step(0.0)

        assert near(layer.weight, trace(f"{step}/probe_weight_after"))
        assert near(layer.bias, trace(f"{step}/probe_bias_after"))
        assert near(twin.net[1].weight, trace(f"{step}/gallery_weight_after"))
        assert near(twin.net[1].bias, trace(f"{step}/gallery_bias_after"))
        assert near(head.rows, trace(f"{step}/queue_after"))
        assert head.toggles.tolist() == after["queue_position"]
        state = head.pool.state()
        assert np.stack([state["ids"], state["slots"]], 1).tolist() == after["lru_mru_first"]

"""Sessions of ONNX Runtime take no more cores than are free, and give them up while they wait."""

import time
from pathlib import Path

import numpy as np
import pytest

from facescale.machine import onnx_session

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize(("wanted", "free", "given"), [(8, 2, 2), (1, 4, 1), (3, 4, 3)])
def test_no_more_threads_than_free_cores(
    wanted: int, free: int, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_session, "free_cores", lambda: (free, "told"))
    options = onnx_session.session_options(wanted)
    assert options.intra_op_num_threads == given
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_threads_that_wait_take_no_processor_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "free_cores", lambda: (2, "told"))
    kind, side = onnx.TensorProto.FLOAT, 256
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "x"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", kind, [side, side])],
        [onnx.helper.make_tensor_value_info("y", kind, [side, side])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "m.onnx"), onnx_session.session_options(2), providers=["CPUExecutionProvider"]
    )
    x = np.ones((side, side), np.float32)
    session.run(None, {"x": x})
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1

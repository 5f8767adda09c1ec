"""Run an ONNX file, of facescale or another project, as a model (needs the extra ``export``)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from facescale.model_card import Contract, Graph


class OnnxEncoder:
    """An ONNX Runtime session as an encoder."""

    def __init__(self, session: Any, contract: Contract, graph: Graph) -> None:
        self.unit_output = graph.unit_output
        self.embedding_size = int(session.get_outputs()[0].shape[-1])
        self._session = session
        self._contract = contract
        self._uint8_input = graph.uint8_input
        self._input = session.get_inputs()[0].name
        batch = session.get_inputs()[0].shape[0]
        self._fixed_batch = (
            batch if isinstance(batch, int) else None
        )  # many files of other projects take only one image

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Embed a batch; the result is on the CPU."""
        x = images_BHW3 if self._uint8_input else self._contract.normalise(images_BHW3)
        x_B = x.cpu().contiguous().numpy()
        size = self._fixed_batch or len(x_B)
        padded = np.concatenate([x_B, np.repeat(x_B[-1:], -len(x_B) % size, axis=0)])
        parts = [
            self._session.run(None, {self._input: padded[start : start + size]})[0]
            for start in range(0, len(padded), size)
        ]
        return torch.from_numpy(np.concatenate(parts)[: len(x_B)]).float()

"""Run an ONNX file, of facescale or another project, as a model (needs the extra ``export``)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from facescale.guard.reading import reason
from facescale.model_card import Contract, Graph


class OnnxEncoder:
    """An ONNX Runtime session as an encoder.

    Raises:
        ValueError: the graph does not map one input to embeddings of a fixed size.
    """

    def __init__(self, session: Any, contract: Contract, graph: Graph) -> None:
        self.unit_output = graph.unit_output
        size = session.get_outputs()[0].shape[-1:]
        if len(session.get_inputs()) != 1 or not size or not isinstance(size[0], int):
            raise ValueError("its graph does not map one input to embeddings of a fixed size")
        self.embedding_size = size[0]
        self._session = session
        self._contract = contract
        self._uint8_input = graph.uint8_input
        self._input = session.get_inputs()[0].name
        batch = session.get_inputs()[0].shape[0]
        self._fixed_batch = (
            batch if isinstance(batch, int) else None
        )  # many files of other projects take only one image

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Embed a batch; the result is on the CPU.

        Raises:
            ValueError: the graph fails, or gives something other than one embedding per image.
        """
        x = images_BHW3 if self._uint8_input else self._contract.normalise(images_BHW3)
        x_B = x.cpu().contiguous().numpy()
        size = self._fixed_batch or len(x_B)
        padded = np.concatenate([x_B, np.repeat(x_B[-1:], -len(x_B) % size, axis=0)])
        parts = [self._run(padded[start : start + size]) for start in range(0, len(padded), size)]
        return torch.from_numpy(np.concatenate(parts)[: len(x_B)]).float()

    def _run(self, x_B: Any) -> Any:
        try:
            embeddings_BD = self._session.run(None, {self._input: x_B})[0]
        except Exception as error:  # its exceptions have no common base class
            raise ValueError(f"the ONNX graph fails on an image: {reason(error)}; export it again") from None
        if np.shape(embeddings_BD) != (len(x_B), self.embedding_size):
            raise ValueError(
                f"the ONNX graph gives {np.shape(embeddings_BD)} for {len(x_B)} images, not one embedding of"
                f" {self.embedding_size} numbers each; export it again"
            )
        return embeddings_BD

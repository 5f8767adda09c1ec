"""Names for the array types that signatures use."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]  # images, RGB

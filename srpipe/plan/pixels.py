"""What arrays of pixels are called."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Planes = npt.NDArray[np.float32]

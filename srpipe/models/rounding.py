"""Rounds a convolution's weights so that its results, not its weights, change least.

Weights are rounded one input after another, and what each rounding does to the results is made up
for by the weights still to come, as far as the inputs are alike. How alike they are is measured on
calibration tiles: the matrix of their products. Method: GPTQ (Frantar et al., arXiv 2210.17323), in
the form of Babai's nearest plane (Chen et al., arXiv 2507.18553), which needs no inverse.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Share of the mean diagonal added to it: keeps the matrix invertible where inputs are alike.
_DAMPING = 0.01
_LEAST = 1e-12


def input_products(
    values: Floats, kernel: tuple[int, int], n_positions: int, rng: np.random.Generator
) -> Floats:
    """Sums of products of what a kernel sees, over some positions of a tile.

    Args:
        values: (channels, height, width) input of a convolution.
        kernel: its height and width, at most those of ``values``.
        n_positions: positions to look at, drawn at random.
        rng: draws them.

    Returns:
        (k, k), where k is channels times kernel height times kernel width, in the order of weights.
    """
    windows = np.lib.stride_tricks.sliding_window_view(values, kernel, axis=(1, 2))
    rows, columns = windows.shape[1:3]
    n = min(n_positions, rows * columns)
    at = rng.choice(rows * columns, n, replace=False)
    seen = windows[:, at // columns, at % columns].transpose(1, 0, 2, 3).reshape(n, -1)
    products: Floats = seen.T @ seen
    return products


def round_weights(weights: Floats, scales: Floats, products: Floats, most: int) -> Floats:
    """Integers for weights, rounded so that the results change least.

    Args:
        weights: (outputs, k).
        scales: (outputs,), the real value of one.
        products: (k, k) from :func:`input_products`.
        most: the largest integer allowed, and with its sign the smallest.

    Returns:
        (outputs, k) whole numbers.
    """
    matrix = products.astype(np.float64)
    diagonal = np.einsum("ii->i", matrix)
    diagonal += _DAMPING * diagonal.mean() + _LEAST
    upper = np.linalg.cholesky(matrix).T
    upper = (upper / np.diag(upper)[:, np.newaxis]).astype(np.float32)
    integers = np.zeros_like(weights)
    errors = np.zeros_like(weights)
    for i in reversed(range(weights.shape[1])):
        wanted = weights[:, i] + errors[:, i + 1 :] @ upper[i, i + 1 :]
        integers[:, i] = np.clip(np.rint(wanted / scales), -most, most)
        errors[:, i] = weights[:, i] - integers[:, i] * scales
    return integers

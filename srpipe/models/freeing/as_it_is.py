"""Whether a model that declares nothing fixed can stay as it is."""

from __future__ import annotations

import numpy as np
import onnx

from srpipe.models.freeing.ports import Port
from srpipe.models.freeing.proof import SAME_SHARES
from srpipe.models.freeing.worlds import BATCH, HEIGHT, WIDTH
from srpipe.models.verify import Runner, largest_difference, noise_between, span_of

_TILES = 3


def takes_any(model: onnx.ModelProto, port: Port, base: tuple[int, int, int]) -> bool:
    """Whether a batch of three is the same as its tiles one by one, at two sizes.

    Args:
        model: it declares batch, height and width free.
        port: how to call it.
        base: a batch, height and width at which it runs.
    """
    runner = Runner(model.SerializeToString())
    given = next(value for value in model.graph.input if value.name == port.input_name)
    share = SAME_SHARES.get(given.type.tensor_type.elem_type, 1e-4)
    for tall, wide in ((1, 2), (2, 1)):
        shape = [port.channels] * 4
        shape[port.axes[BATCH]] = _TILES
        shape[port.axes[HEIGHT]] = tall * base[HEIGHT]
        shape[port.axes[WIDTH]] = wide * base[WIDTH]
        tiles = noise_between(shape, runner.value_range())
        together = runner.try_run(tiles, port.output_name)
        apart = [runner.try_run(tiles[i : i + 1], port.output_name) for i in range(_TILES)]
        singles = [single for single in apart if single is not None]
        if together is None or len(singles) < _TILES:
            return False
        joined = np.concatenate(singles)
        if not largest_difference(together, joined) <= share * span_of(joined):
            return False
    return True

"""What quantisation costs against the truth: ``python -m benchmarks.true_psnr FP32 INT8 IMAGE…``.

Photographs are shrunk by bicubic interpolation, enlarged by both models, and both results are compared
with the originals (luma, as papers do it).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from training.data import read_picture
from training.evaluate import psnr_db
from training.resample import ByteArray, imresize, to_bytes

from srpipe.errors import SrpipeError
from srpipe.io.model_probe import probe_model
from srpipe.io.session import Session


def true_psnr_db(model: Path, truth: ByteArray) -> float:
    """Luma PSNR of a model's enlargement of a shrunk picture.

    Args:
        model: an RGB model of values 0 to 1, NCHW.
        truth: (height, width, 3); rows and columns beyond a multiple of the scale are left out.
    """
    info = probe_model(model)
    step = info.scale * info.multiple_px
    height, width = (side // step * step for side in truth.shape[:2])
    truth = truth[:height, :width]
    low = to_bytes(imresize(truth, 1 / info.scale))
    batch = np.ascontiguousarray(low.transpose(2, 0, 1)[np.newaxis].astype(np.float32) / 255)
    session = Session(str(model), "cpu", 0)
    (result,) = session.run_several(info.input_name, [info.output_name], batch)
    return psnr_db(to_bytes(result[0].transpose(1, 2, 0) * 255), truth, info.scale)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each picture, and the mean; returns the exit code."""
    parser = argparse.ArgumentParser(prog="true_psnr", description=__doc__)
    parser.add_argument("float_model", type=Path, metavar="FP32")
    parser.add_argument("int8_model", type=Path, metavar="INT8")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--crop", type=int, metavar="N", help="only the middle N x N pixels")
    options = parser.parse_args(arguments)
    rows = []
    try:
        for path in options.pictures:
            truth = _middle(read_picture(path), options.crop)
            row = [true_psnr_db(m, truth) for m in (options.float_model, options.int8_model)]
            print(_line(path.name, *row), flush=True)
            rows.append(row)
    except (OSError, SrpipeError) as error:
        print(f"true_psnr: {error}", file=sys.stderr)
        return 1
    print(_line("mean", *np.mean(rows, axis=0)))
    return 0


def _middle(picture: ByteArray, side: int | None) -> ByteArray:
    if side is None:
        return picture
    top, left = (max(0, n - side) // 2 for n in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def _line(name: str, float_db: float, int8_db: float) -> str:
    return (
        f"{name:24} {float_db:7.3f} dB  INT8 {int8_db:7.3f} dB  loss {float_db - int8_db:6.3f} dB"
    )


if __name__ == "__main__":
    sys.exit(main())

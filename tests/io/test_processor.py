from __future__ import annotations

import os

from srpipe.io.processor import available_cores


def test_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)

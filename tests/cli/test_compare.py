"""``srpipe compare``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import photograph_pixels, write_pixels
from tests.processes import run_srpipe


def test_a_strip_from_the_command_line(tmp_path: Path) -> None:
    before = write_pixels(tmp_path / "a[1].png", photograph_pixels(60, 80))
    strip = tmp_path / "strip.png"
    command = ("compare", before, before, "-o", strip, "--crop", "0,0,20,20", "--crop", "5,5,9,9")
    result = run_srpipe(*command, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["crops"][1] == {"left": 5, "top": 5, "width": 9, "height": 9}
    again = run_srpipe(*command)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    wrong = run_srpipe("compare", before, before, "-o", strip, "--crop", "0,0,20")
    assert wrong.returncode == 2
    assert "must be X,Y,W,H" in wrong.stderr

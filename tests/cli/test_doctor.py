"""``srpipe doctor``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from srpipe.models.zoo import bundled_models
from tests.processes import run_srpipe


def test_all_is_well_here() -> None:
    result = run_srpipe("doctor", "--json")
    diagnosis = json.loads(result.stdout)
    amiss = [finding for finding in diagnosis["findings"] if not finding["ok"]]
    assert (result.returncode, diagnosis["ok"], amiss) == (0, True, [])
    names = {finding["name"] for finding in diagnosis["findings"]}
    assert {"libvips", "providers", "reads", "writes", "cores", "memory", "/dev/shm", "open files",
            "extras"} <= names  # fmt: skip
    assert {f"model {name}" for name in bundled_models()} <= names


def test_what_is_amiss_has_advice_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "pyvips").mkdir()
    (tmp_path / "pyvips" / "__init__.py").write_text("raise ImportError('libvips.so: missing')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import srpipe.__main__ as m; "
    environment = os.environ | {"SRPIPE_CACHE": str(tmp_path / "file" / "cache")}
    found = subprocess.run(
        [sys.executable, "-c", code + "sys.argv[1:] = ['doctor']; sys.exit(m.main())"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr + found.stdout
    assert "ImportError: libvips.so: missing" in found.stdout
    assert "set SRPIPE_CACHE" in found.stdout
    other = subprocess.run(
        [sys.executable, "-c", code + "sys.argv[1:] = ['models']; sys.exit(m.main())"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert other.returncode == 1
    assert other.stderr == (
        "srpipe: cannot start (libvips.so: missing): 'srpipe doctor' tells what is amiss.\n"
    )

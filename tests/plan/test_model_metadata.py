from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.plan.model_metadata import read_foreign, scale_hint

# As OpenModelDB's schema has it; the description is shortened.
OPENMODELDB = {
    "name": "DeJPG_OmniSR",
    "author": ["helaman", "musl"],
    "license": "CC-BY-4.0",
    "tags": ["compression-removal", "jpeg"],
    "description": "1xDeJPG OmniSR model\n\nMeant to remove jpg artifacts.",
    "date": "2023-08-02",
    "architecture": "omnisr",
    "size": None,
    "scale": 1,
    "inputChannels": 3,
    "outputChannels": 3,
    "resources": [{"platform": "onnx", "type": "onnx", "size": 1, "sha256": None, "urls": []}],
    "images": [],
}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("4x_NMKD-Siax_200k.onnx", 4),
        ("4xNomos8kSC.onnx", 4),
        ("1x-DeJPG-OmniSR.onnx", 1),
        ("16x-ESRGAN.onnx", 16),
        ("RealESRGAN_x4plus.onnx", 4),
        ("RealESRGAN_x4plus_anime_6B.onnx", 4),
        ("realesr-animevideov3-x2.onnx", 2),
        ("lite-x2.onnx", 2),
        ("swinir.2x.onnx", 2),
        ("scunet_256x256.onnx", None),
        ("deh264-x265.onnx", None),
        ("model_2x_or_x4.onnx", None),
        ("0x-nothing.onnx", None),
        ("max3.onnx", None),
        ("box2.onnx", None),
        ("x", None),
        ("", None),
    ],
)
def test_scale_hint(name: str, hint: int | None) -> None:
    assert scale_hint(name) == hint


def test_openmodeldb() -> None:
    assert read_foreign({}, OPENMODELDB, "1x-DeJPG.onnx") == {
        "name": "DeJPG_OmniSR",
        "author": "helaman, musl",
        "licence": "CC-BY-4.0",
        "purpose": "1xDeJPG OmniSR model",
        "architecture": "omnisr",
        "scale_hint": "1",
    }


def test_the_files_own_keys_win() -> None:
    own = {"name": "mine", "licence": "MIT", "scale": "2"}
    found = read_foreign(own, OPENMODELDB, "4x_m.onnx")
    assert found.keys() == {"author", "purpose", "architecture"}


def test_the_sidecar_knows_better_than_the_name() -> None:
    assert read_foreign({}, OPENMODELDB | {"scale": 2}, "4x_m.onnx")["scale_hint"] == "2"


def test_another_json_is_no_sidecar() -> None:
    assert read_foreign({}, {"name": "package", "scale": 2}, "m.onnx") == {}


def test_deepness() -> None:
    props = {
        "model_type": json.dumps("Superresolution"),
        "class_names": json.dumps({"0": "background"}),
        "resolution": json.dumps(50),
        "tiles_size": json.dumps(512),
        "tiles_overlap": json.dumps(40),
        "standardization_mean": json.dumps([0.5, 0.5, 0.5]),
        "standardization_std": json.dumps([0.25, 0.25, 0.25]),
    }
    assert read_foreign(props, None, "m.onnx") == {
        "purpose": "Superresolution",
        "tile_size": "512",
        "value_range": "-2,2",
    }


def test_no_standardization_is_no_value_range() -> None:
    props = {"standardization_mean": "[0.0, 0, 0]", "standardization_std": "[1, 1, 1]"}
    assert read_foreign(props, None, "m.onnx") == {}


def test_standardization_by_channel_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    props = {
        "standardization_mean": "[0.485, 0.456, 0.406]",
        "standardization_std": "[0.229, 0.224, 0.225]",
    }
    with caplog.at_level(logging.WARNING):
        assert read_foreign(props, None, "m.onnx") == {}
    assert "differ from channel to channel" in caplog.text


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ("[0.5]", "[0]"),
        ("[0.5]", "[-1]"),
        ("[0.5, 0.5]", "[0.5]"),
        ("[]", "[]"),
        ("null", "1"),
        ("[true]", "[1]"),
        ("[NaN]", "[1]"),
        ("[0.5]", "[5e-324]"),
        ("half", "[1]"),
        ('["0.5"]', "[1]"),
        ("9" * 400, "1"),
        ("[" * 100_000, "[1]"),
    ],
)
def test_nonsense_is_ignored(mean: str, std: str) -> None:
    props = {"standardization_mean": mean, "standardization_std": std}
    assert read_foreign(props, None, "m.onnx") == {}


def test_onnx_names_for_author_and_licence() -> None:
    props = {"model_author": "Ada", "model_license": "MIT"}
    assert read_foreign(props, None, "m.onnx") == {"author": "Ada", "licence": "MIT"}


def test_text_is_made_fit_to_print() -> None:
    sidecar = OPENMODELDB | {"name": "a\x1b[2Jb\ud800\n c" + "d" * 10_000, "author": 7}
    found = read_foreign({}, sidecar, "m.onnx")
    assert found["name"].startswith("a [2Jb cd")
    assert len(found["name"]) <= 300
    assert "author" not in found


_KEYS = st.sampled_from(
    ["model_type", "tiles_size", "standardization_mean", "standardization_std", "license", "scale"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    props=st.dictionaries(_KEYS | st.text(), st.text() | _JSON.map(json.dumps), max_size=6),
    sidecar=st.none()
    | st.dictionaries(st.sampled_from(sorted(OPENMODELDB)) | st.text(), _JSON, max_size=12)
    | st.fixed_dictionaries(dict.fromkeys(OPENMODELDB, _JSON)),
    name=st.text(max_size=30),
)
def test_any_mapping_gives_text_and_never_fails(
    props: dict[str, str], sidecar: dict[str, object] | None, name: str
) -> None:
    found = read_foreign(props, sidecar, name)
    assert not found.keys() & props.keys()
    for value in found.values():
        assert value
        assert value.isprintable()
        assert value.encode()

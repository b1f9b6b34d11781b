from __future__ import annotations

from pathlib import Path

import pytest

from srpipe.errors import DeviceError
from srpipe.io.devices import Device, available_devices, resolve_device
from srpipe.io.external_data import hash_model
from tests.onnx_models import conv_model

# What these tests can see depends on the build of ONNX Runtime.
_CUDA = "cuda" in available_devices()


def test_auto_and_cpu() -> None:
    assert resolve_device("auto") in ("cpu", "cuda:0", "rocm:0")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize(
    "name", ["quantum", "", "cpu:0", "cpu:1", "cuda:", "cuda:x", "cuda:-1", "cuda:¹", "openvino:1", ",",
             "cuda:0:1", "cuda:0,", "cuda:99999"],
)  # fmt: skip
def test_what_is_no_device_is_unknown(name: str) -> None:
    with pytest.raises(DeviceError, match="is unknown: use auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda:0,cpu", "cuda,tensorrt", "cpu,rocm:1"])
def test_devices_of_several_kinds_do_not_mix(name: str) -> None:
    with pytest.raises(DeviceError, match="of several kinds"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda,cuda:0", "0,0", "cuda:1,1", "cpu,cpu", "cuda:1,cuda:01"])
def test_a_device_is_named_once(name: str) -> None:
    with pytest.raises(DeviceError, match="names a device twice"):
        resolve_device(name)


@pytest.mark.skipif(_CUDA, reason="this ONNX Runtime has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "0", "1", "0,1", "tensorrt:0,1"])
def test_a_device_of_another_build_is_not_there(name: str) -> None:
    """Device 0 is a device: it is asked for, and missed, as any other."""
    with pytest.raises(
        DeviceError, match=r"has cpu.*onnxruntime is installed: pip uninstall.*gpu\["
    ):
        resolve_device(name)


@pytest.mark.skipif(not _CUDA, reason="this ONNX Runtime has no CUDA")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("0", "cuda:0"),
        ("1,0", "cuda:1,cuda:0"), ("cuda:0,cuda:1", "cuda:0,cuda:1"), ("cuda:0, 1", "cuda:0,cuda:1"),
        ("tensorrt:1,2", "tensorrt:1,tensorrt:2"),
    ],
)  # fmt: skip
def test_names_of_cuda_devices(name: str, expected: str) -> None:
    assert resolve_device(name) == expected


@pytest.mark.parametrize("number", [0, 1, 12])
def test_the_number_is_always_passed_on(number: int) -> None:
    """Also when it is 0: another provider's default may be another device."""
    for kind in ("cuda", "rocm", "migraphx", "directml"):
        device = Device.parse(f"{kind}:{number}")
        ((_, options),) = device.providers("m.onnx")
        assert options["device_id"] == str(number)
        assert str(device) == f"{kind}:{number}"


def test_defaults_of_cuda() -> None:
    assert Device.parse("cuda").providers("m.onnx") == [
        (
            "CUDAExecutionProvider",
            {
                "cudnn_conv_algo_search": "HEURISTIC",
                "arena_extend_strategy": "kSameAsRequested",
                "device_id": "0",
            },
        )
    ]


def test_tensorrt_keeps_engines_by_content_and_leaves_the_rest_to_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRPIPE_CACHE", str(tmp_path / "cache"))
    model = conv_model(tmp_path / "m.onnx")
    first, second = Device.parse("tensorrt:1").providers(str(model))
    assert first[0] == "TensorrtExecutionProvider"
    assert second == Device.parse("cuda:1").providers(str(model))[0]
    folder = Path(first[1]["trt_engine_cache_path"])
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "cache")
    assert hash_model(str(model))[:16] in folder.name
    assert first[1]["trt_timing_cache_path"] == str(folder)
    # The same nodes with other weights: TensorRT's own names would be the same.
    conv_model(model, features=9)
    assert Device.parse("tensorrt:1").providers(str(model))[0][1]["trt_engine_cache_path"] != str(
        folder
    )
    assert Device.parse("tensorrt:1").probing == Device.parse("cuda:1")
    assert Device.parse("cuda:1").probing == Device.parse("cuda:1")

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srpipe.errors import DeviceError, ModelError
from srpipe.io.devices import available_devices
from srpipe.io.onnx_runtime import is_out_of_memory, one_line
from srpipe.io.session import Session
from tests.onnx_models import conv_model

# As users of ONNX Runtime reported them; the numbers are of GitHub's issues.
RAN_OUT = {
    "onnxruntime 16307": "Non-zero status code returned while running ReduceSum node. onnxruntime::"
    "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 939524096",
    "onnxruntime 9939": "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned "
    "while running FusedMatMul node. Name:'MatMul_92_FusedMatMulAndScale' Status Message: "
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:331 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 8388608",
    "Deep-Live-Cam 584": "[ONNXRuntimeError] : 1 : FAIL : cuda_call.cc:114 onnxruntime::CudaCall CUDA "
    "failure 2: out of memory ; GPU=0 ; file=cuda_stream_handle.cc ; line=175 ; "
    "expr=cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);",
    "Deep-Live-Cam 645": "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned "
    "while running Gemm node. Name:'fc1' Status Message: onnxruntime::CudaCall CUBLAS failure 3: "
    "CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&cublas_handle_);",
    "CNTK 220": "cuDNN failure 2: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ; expr=finder(calgo, algoPerf)",
    "onnxruntime 10770": "[E:onnxruntime:Default, tensorrt_execution_provider.h:50 log] ERROR] "
    "../rtSafe/safeRuntime.cpp (25) - Cuda Error in allocate: 2 (out of memory)",
    "TensorRT 4254": "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory "
    "(Requested size was 16581132288 bytes.)",
    "onnxruntime 4325": "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: "
    "bad allocation",
    "diffusers 791": "Exception during initialization: DmlExecutionProvider\\src\\"
    "BucketizedBufferAllocator.cpp(122)\\onnxruntime_pybind11_state.pyd!00007FFA82D145C8: (caller: "
    "00007FFA8336D326) Exception(1) tid(4790) 8007000E Not enough memory resources are available to "
    "complete this operation.",
    "AMDMIGraphX 1688": "MIGraphX Error: src/targets/gpu/hip.cpp:109: allocate_gpu: Memory not "
    "available to allocate buffer: 251658240",
}
OTHER = {
    "onnxruntime 4008": "[ONNXRuntimeError] : 1 : FAIL : CUDA error executing cudaMemcpy(dst_data, "
    "src_data, bytes, cudaMemcpyDeviceToHost)",
    "onnxruntime 11561": "CUDA failure 100: no CUDA-capable device is detected ; GPU=0 ; "
    "expr=cudaSetDevice(info_.device_id);",
    "triton server 4766": "CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED",
    "onnxruntime 21001": "Non-zero status code returned while running TRTKernel node. Status Message: "
    "TensorRT EP failed to create engine from network.",
    "triton server 3776": "not enough space: expected 318080, got 314240",
}


@pytest.mark.parametrize("said", RAN_OUT.values(), ids=RAN_OUT.keys())
def test_recorded_messages_of_memory_that_ran_out(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))


@pytest.mark.parametrize("said", OTHER.values(), ids=OTHER.keys())
def test_recorded_messages_of_other_failures(said: str) -> None:
    assert not is_out_of_memory(RuntimeError(said))


def test_a_long_message_becomes_a_line() -> None:
    assert one_line(RuntimeError("a\n  b\tc" + "x" * 1000)) == ("a b c" + "x" * 1000)[:300]


@pytest.mark.skipif("cuda" in available_devices(), reason="this ONNX Runtime has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("device", ["cuda:0", "tensorrt:0"])
def test_a_provider_that_was_dropped_is_an_error(
    x2_model: Path, device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ONNX Runtime only warns, and gives a session that runs on the CPU."""
    monkeypatch.setenv("SRPIPE_CACHE", str(tmp_path))
    with pytest.raises(DeviceError, match=rf"'{device}' could not be started \(ONNX Runtime dropp"):
        Session(str(x2_model), device, 1)


@pytest.mark.skipif("rocm" in available_devices(), reason="this ONNX Runtime has ROCm")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_device_and_a_model_that_cannot_be_loaded_are_told_apart(
    x2_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match="'rocm:1' could not be started"):
        Session(str(x2_model), "rocm:1", 1)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(x2_model.read_bytes().replace(b"DepthToSpace", b"DepthToNowhe"))
    with pytest.raises(ModelError, match="cannot be loaded as an ONNX model"):
        Session(str(damaged), "rocm:1", 1)


def test_content_is_loaded_instead_of_the_file(x2_model: Path, tmp_path: Path) -> None:
    other = conv_model(tmp_path / "other.onnx", features=2)
    session = Session(str(other), "cpu", 1, x2_model.read_bytes())
    batch = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    expected = Session(str(x2_model), "cpu", 1).run_free("input", "output", batch)
    np.testing.assert_array_equal(session.run_free("input", "output", batch), expected)

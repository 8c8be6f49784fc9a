"""Stand-ins for the vendor's TensorRT and for a GPU's memory: engines are computed by ONNX Runtime."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort


class HostMemory:
    """Stands in for the GPU's memory."""

    def __init__(self) -> None:
        self.held: list[np.ndarray] = []
        self.waited = 0

    def upload(self, array: np.ndarray) -> np.ndarray:
        self.held.append(np.array(array))
        return self.held[-1]

    def address(self, handle: np.ndarray) -> int:
        return handle.ctypes.data

    def download(self, handle: np.ndarray, like: np.ndarray) -> np.ndarray:
        assert handle.shape == like.shape
        return np.array(handle)

    def wait(self) -> None:
        self.waited += 1

    def free(self) -> None:
        self.held.clear()

    def stream(self) -> int:
        return 7


class _FakeLogger:
    Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0, INFO=3)


class _Config:
    """Of a builder, as far as the exporter uses it; timings of another version are refused, as they are by TensorRT."""

    def __init__(self) -> None:
        self.timings, self.flags, self.cleared = b"", set[str](), set[str]()

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert size > 0

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.cleared.add(flag)

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        accepted = cache in (b"", b"timings of 8.5.2")
        self.timings = cache if accepted else self.timings
        return accepted

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: b"timings of 8.5.2")


class _Engine:
    """An engine that ONNX Runtime computes, with TensorRT's interface from 8.5 on; it reads and writes by address."""

    num_io_tensors = 2

    def __init__(self, plan: bytes) -> None:
        self._session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}

    def get_tensor_name(self, i: int) -> str:
        return ("logits", "images")[i]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "images" else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "float"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(n, 3, 24, 24) for n in (1, 2, 4)]

    def create_execution_context(self) -> "_Engine":
        return self

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name == "images":
            fixed = self._session.get_inputs()[0].shape
            return tuple(n if isinstance(n, int) else -1 for n in fixed)
        return (self._shape[0] if self._shape else -1, 3)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert shape[0] <= 4
        self._shape = shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        given, found = (
            self._view(name, shape) for name, shape in (("images", self._shape), ("logits", (self._shape[0], 3)))
        )
        found[:] = self._session.run(None, {"images": given})[0]
        return True

    def _view(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = (ctypes.c_float * int(np.prod(shape))).from_address(self._addresses[name])
        return np.ctypeslib.as_array(values).reshape(shape)


def fake_tensorrt(*, makes_builder: bool = True, loads: bool = True) -> SimpleNamespace:
    """The vendor's module as far as the exporter uses it: version 8.5, which knows no strong types."""
    seen = SimpleNamespace(config=None, content=b"")

    class Builder:
        def __init__(self, log: Any) -> None:
            if not makes_builder:
                log.log(1, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int) -> SimpleNamespace:
            assert flags == 1 << 0
            source = SimpleNamespace(name="images", shape=(-1, 3, 24, 24))
            return SimpleNamespace(num_inputs=1, get_input=lambda i: source)

        def create_builder_config(self) -> _Config:
            seen.config = _Config()
            seen.config.add_optimization_profile = lambda profile: None
            return seen.config

        def create_optimization_profile(self) -> SimpleNamespace:
            return SimpleNamespace(set_shape=lambda name, low, usual, high: None)

        def build_serialized_network(self, network: Any, config: Any) -> bytes:
            assert not hasattr(config, "num_compute_capabilities")
            return seen.content

    def parse(content: bytes) -> bool:
        seen.content = content
        return True

    return SimpleNamespace(
        __name__="tensorrt",
        __version__="8.5.2",
        seen=seen,
        ILogger=_FakeLogger,
        Builder=Builder,
        BuilderFlag=SimpleNamespace(FP16="FP16", INT8="INT8", TF32="TF32"),
        OnnxParser=lambda network, log: SimpleNamespace(parse=parse),
        NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        TensorIOMode=SimpleNamespace(INPUT="input"),
        nptype=lambda name: np.float32,
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=lambda plan: _Engine(plan) if loads else None),
    )

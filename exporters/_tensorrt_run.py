"""Running an engine on this machine's GPU, with memory by PyTorch or by NVIDIA's cuda-python, whichever is there."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nas2edge.errors import RuntimeFailedError

Array = npt.NDArray[Any]


class Memory(Protocol):
    """Arrays on the GPU."""

    def upload(self, array: Array) -> Any:
        """Returns a handle of a copy on the GPU."""

    def address(self, handle: Any) -> int:
        """Returns where it lies."""

    def download(self, handle: Any, like: Array) -> Array:
        """Waits for all work, and returns the contents, of the shape and type of `like`."""

    def stream(self) -> int:
        """Returns the stream that work goes to."""


class TorchMemory:
    """By PyTorch."""

    def __init__(self, torch: Any) -> None:
        self._torch, self._stream = torch, torch.cuda.Stream()

    def upload(self, array: Array) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(array)).cuda()

    def address(self, handle: Any) -> int:
        return int(handle.data_ptr())

    def download(self, handle: Any, like: Array) -> Array:
        self._torch.cuda.synchronize()
        return np.asarray(handle.cpu().numpy())

    def stream(self) -> int:
        return int(self._stream.cuda_stream)


class CudaMemory:
    """By cuda-python."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._stream = self._asked(runtime.cudaStreamCreate())
        self._held: list[int] = []

    def upload(self, array: Array) -> Any:
        array = np.ascontiguousarray(array)
        pointer = int(self._asked(self._runtime.cudaMalloc(array.nbytes)))
        self._held.append(pointer)
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._asked(self._runtime.cudaMemcpy(pointer, array.ctypes.data, array.nbytes, kind))
        return pointer

    def address(self, handle: Any) -> int:
        return int(handle)

    def download(self, handle: Any, like: Array) -> Array:
        self._asked(self._runtime.cudaDeviceSynchronize())
        found = np.empty_like(like)
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._asked(self._runtime.cudaMemcpy(found.ctypes.data, int(handle), found.nbytes, kind))
        for pointer in self._held:
            self._asked(self._runtime.cudaFree(pointer))
        self._held.clear()
        return found

    def stream(self) -> int:
        return int(self._stream)

    def _asked(self, reply: Any) -> Any:
        code, *values = reply
        if int(code):
            raise RuntimeFailedError(f"CUDA failed with {code}")
        return values[0] if values else None


def find_memory() -> Memory | None:
    """Returns the first way to use the GPU's memory that works here, or None."""
    if importlib.util.find_spec("torch") is not None:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            return TorchMemory(torch)
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return CudaMemory(importlib.import_module(name))
        except (ImportError, OSError, RuntimeError, RuntimeFailedError):
            continue
    return None


def run_engine(trt: ModuleType, log: Any, engine: Path, images: Array, memory: Memory) -> Array:
    """Runs an engine with one input and one output on any number of images, and returns logits (N, classes).

    Args:
        trt: The package that built it.
        log: Made for the package.
        engine: The file.
        images: (N, 3, R, R); the last is repeated where a fixed batch size wants more.
        memory: On the GPU.

    Raises:
        RuntimeFailedError: The engine does not load, or fails.
    """
    loaded = trt.Runtime(log).deserialize_cuda_engine(engine.read_bytes())
    if loaded is None:
        raise _failed(trt, log, f"does not load {engine}")
    names = [loaded.get_tensor_name(i) for i in range(loaded.num_io_tensors)]
    (source,) = (name for name in names if loaded.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
    (target,) = (name for name in names if name != source)
    context = loaded.create_execution_context()
    fixed = tuple(loaded.get_tensor_shape(source))[0]
    size = fixed if fixed > 0 else _most(loaded, source)
    outputs = []
    for i in range(0, len(images), size):
        part = images[i : i + size]
        if fixed > 0:
            part = np.concatenate([part, np.repeat(images[-1:], size - len(part), axis=0)])
        context.set_input_shape(source, part.shape)
        like = np.zeros(tuple(context.get_tensor_shape(target)), np.dtype(trt.nptype(loaded.get_tensor_dtype(target))))
        given, found = memory.upload(part), memory.upload(like)
        context.set_tensor_address(source, memory.address(given))
        context.set_tensor_address(target, memory.address(found))
        if not context.execute_async_v3(memory.stream()):
            raise _failed(trt, log, f"fails to run {engine}")
        outputs.append(memory.download(found, like).astype(np.float32))
    return np.concatenate(outputs)[: len(images)]


def _most(loaded: Any, source: str) -> int:
    """The greatest batch size of the one profile."""
    return int(tuple(loaded.get_tensor_profile_shape(source, 0)[2])[0])


def _failed(trt: ModuleType, log: Any, what: str) -> RuntimeFailedError:
    said = log.problems[-1] if log.problems else "it gave no reason"
    return RuntimeFailedError(f"{trt.__name__} {trt.__version__} {what}: {said}")

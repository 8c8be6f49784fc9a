"""Memory of this machine's GPU, by PyTorch or by NVIDIA's cuda-python, whichever is there."""

from __future__ import annotations

import importlib
import importlib.util
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

    def wait(self) -> None:
        """Waits for all work."""

    def free(self) -> None:
        """Gives back what was uploaded."""

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
        self.wait()
        return np.asarray(handle.cpu().numpy())

    def wait(self) -> None:
        self._torch.cuda.synchronize()

    def free(self) -> None:
        """Nothing to do: memory goes with the handles."""

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
        self.wait()
        found = np.empty_like(like)
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._asked(self._runtime.cudaMemcpy(found.ctypes.data, int(handle), found.nbytes, kind))
        return found

    def wait(self) -> None:
        self._asked(self._runtime.cudaDeviceSynchronize())

    def free(self) -> None:
        while self._held:
            self._asked(self._runtime.cudaFree(self._held.pop()))

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

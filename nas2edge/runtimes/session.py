"""What every runtime can do with a network that it has loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Timed = Callable[[int], tuple[float, float]]
"""Runs so many times; returns (seconds that passed, seconds of this thread's CPU time)."""
_CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of a network.

    Args:
        name: As the runtime calls it.
        shape: Sizes; None for an axis of any size, an empty tuple where the runtime does not tell.
        dtype: Of its values.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


class Session(ABC):
    """A network with one input and one output, loaded by a runtime. A context manager; closing frees its memory."""

    runtime: str
    """Name and version, such as "ONNX Runtime 1.32.0"."""
    threads: int
    """Threads that one run may use; 0 where the runtime has no such notion."""
    input: Tensor
    output: Tensor

    @abstractmethod
    def run(self, images: Array) -> Array:
        """Runs once; images have the shape and dtype of `input`.

        Raises:
            RuntimeFailedError: The runtime refuses the input, or fails.
        """

    @abstractmethod
    def prepare(self, images: Array) -> Timed:
        """Binds the input, so that timing covers the run and no copies that can be left out."""

    def close(self) -> None:  # noqa: B027 - most runtimes free all by themselves
        """Frees what the network holds."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_all(session: Session, images: Array) -> Array:
    """Runs any number of images through a network, in batches of the size that it takes, and returns all outputs.

    Args:
        session: The network.
        images: (N, ...); the last is repeated where a fixed batch size wants more.

    Raises:
        RuntimeFailedError: The runtime refuses the input, or fails.
    """
    fixed = session.input.shape[0] if session.input.shape else None
    size = fixed or min(_CHUNK, len(images))
    filling = -len(images) % size if fixed else 0
    padded = np.concatenate([images, np.repeat(images[-1:], filling, axis=0)])
    parts = [session.run(padded[i : i + size]) for i in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(images)]


def dtype_of(name: str) -> np.dtype[Any]:
    """Returns the NumPy dtype of "float", "tensor(float16)", "f32", "u8" and the like.

    Raises:
        KeyError: The name is none of them.
    """
    return np.dtype(_DTYPES[name.removeprefix("tensor(").removesuffix(")")])


_DTYPES = {
    "float": "float32", "float32": "float32", "f32": "float32", "float16": "float16", "f16": "float16",
    "double": "float64", "float64": "float64", "f64": "float64", "uint8": "uint8", "u8": "uint8",
    "int8": "int8", "i8": "int8", "int32": "int32", "i32": "int32", "int64": "int64", "i64": "int64",
}  # fmt: skip

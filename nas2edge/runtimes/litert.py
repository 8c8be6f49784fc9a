"""LiteRT (TensorFlow Lite) on the CPU, by XNNPACK as on a phone."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, final

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from nas2edge.errors import InputError, RuntimeFailedError
from nas2edge.runtimes.session import Array, Session, Tensor, Timed


def open_session(model: Path | bytes, *, threads: int) -> Session:
    """Loads a .tflite file; it keeps the batch size that it was made with."""
    if isinstance(model, bytes):
        raise InputError("LiteRT does not read ONNX; convert the model first, and give its .tflite file")
    try:
        interpreter = Interpreter(str(model), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as err:
        raise RuntimeFailedError(f"LiteRT {version('ai-edge-litert')} does not load {model}: {_last(err)}") from err
    return _LiteRtSession(interpreter, threads=threads)


@final
class _LiteRtSession(Session):
    def __init__(self, interpreter: Any, *, threads: int) -> None:
        self._interpreter = interpreter
        self.runtime, self.threads = f"LiteRT {version('ai-edge-litert')}", threads
        (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
        self._source, self._target = source["index"], target["index"]
        self.input, self.output = _tensor(source), _tensor(target)

    def run(self, images: Array) -> Array:
        try:
            self._interpreter.set_tensor(self._source, np.ascontiguousarray(images))
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as err:
            raise RuntimeFailedError(f"{self.runtime} failed: {_last(err)}") from err
        return np.array(self._interpreter.get_tensor(self._target))

    def prepare(self, images: Array) -> Timed:
        self.run(images)
        run = self._interpreter.invoke

        def timed(n: int) -> tuple[float, float]:
            worked, start = thread_time(), perf_counter()
            for _ in range(n):
                run()
            return perf_counter() - start, thread_time() - worked

        return timed


def _tensor(found: Any) -> Tensor:
    return Tensor(name=found["name"], shape=tuple(int(n) for n in found["shape"]), dtype=np.dtype(found["dtype"]))


def _last(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[-1]

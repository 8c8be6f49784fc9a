"""OpenVINO on the CPU, in the precision of the model: float32 is not silently run as bfloat16."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, final

import numpy as np
import openvino as ov

from nas2edge.errors import RuntimeFailedError
from nas2edge.runtimes.session import Array, Session, Tensor, Timed, dtype_of

_VERSION = ov.__version__.split("-")[0]


def open_session(model: Path | bytes, *, threads: int) -> Session:
    """Loads an IR (.xml) or ONNX model with one stream of `threads` threads."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = ov.Core()
    try:
        read = core.read_model(model) if isinstance(model, bytes) else core.read_model(str(model))
        compiled = core.compile_model(read, "CPU", settings)
    except RuntimeError as err:
        raise RuntimeFailedError(f"OpenVINO {_VERSION} does not load the model: {_said(err)}") from err
    return _OpenVinoSession(compiled, threads=threads)


@final
class _OpenVinoSession(Session):
    def __init__(self, compiled: Any, *, threads: int) -> None:
        self._compiled, self._request = compiled, compiled.create_infer_request()
        self.runtime, self.threads = f"OpenVINO {_VERSION}", threads
        self.input, self.output = _tensor(compiled.input(0)), _tensor(compiled.output(0))

    def run(self, images: Array) -> Array:
        try:
            found = self._request.infer({0: np.ascontiguousarray(images)})
        except RuntimeError as err:
            raise RuntimeFailedError(f"{self.runtime} failed: {_said(err)}") from err
        return np.array(found[self._compiled.output(0)])

    def prepare(self, images: Array) -> Timed:
        request = self._compiled.create_infer_request()
        source = np.ascontiguousarray(images)
        request.set_input_tensor(ov.Tensor(source, shared_memory=True))

        def timed(n: int, source: Array = source) -> tuple[float, float]:  # the tensor only borrows the images
            worked, start = thread_time(), perf_counter()
            for _ in range(n):
                request.infer()
            return perf_counter() - start, thread_time() - worked

        return timed


def _tensor(port: Any) -> Tensor:
    shape = tuple(axis.get_length() if axis.is_static else None for axis in port.partial_shape)
    return Tensor(name=port.get_any_name(), shape=shape, dtype=dtype_of(port.element_type.get_type_name()))


def _said(err: Exception) -> str:
    """The last line says what is wrong; those before it name OpenVINO's own source files."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[-1] if lines else type(err).__name__

"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, final

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from nas2edge.errors import RuntimeFailedError
from nas2edge.runtimes.session import Array, Session, Tensor, Timed, dtype_of

FAILURES = tuple(
    getattr(ort_errors, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "NoSuchFile",
                 "RuntimeException", "EPFail")
)  # fmt: skip


def open_session(model: Path | bytes, *, threads: int) -> Session:
    """Loads an ONNX or .ort model; operators run one after the other, `threads` share one operator."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except FAILURES as err:
        raise RuntimeFailedError(f"onnxruntime {ort.__version__} does not load the model: {_first(err)}") from err
    return _OrtSession(session, threads=threads)


@final
class _OrtSession(Session):
    def __init__(self, session: Any, *, threads: int) -> None:
        self._session = session
        self.runtime, self.threads = f"ONNX Runtime {ort.__version__}", threads
        (source,), (target,) = session.get_inputs(), session.get_outputs()
        self.input, self.output = _tensor(source), _tensor(target)

    def run(self, images: Array) -> Array:
        try:
            (found,) = self._session.run([self.output.name], {self.input.name: images})
        except FAILURES as err:
            raise RuntimeFailedError(f"{self.runtime} failed: {_first(err)}") from err
        return np.asarray(found)

    def prepare(self, images: Array) -> Timed:
        result = np.zeros_like(self.run(images))
        binding = self._session.io_binding()
        # Both ends are bound to memory of our own, so that a run copies nothing.
        binding.bind_ortvalue_input(self.input.name, ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images)))
        binding.bind_ortvalue_output(self.output.name, ort.OrtValue.ortvalue_from_numpy(result))
        run = self._session.run_with_iobinding

        def timed(n: int) -> tuple[float, float]:
            worked, start = thread_time(), perf_counter()
            for _ in range(n):
                run(binding)
            return perf_counter() - start, thread_time() - worked

        return timed


def _tensor(found: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) else None for size in found.shape)
    return Tensor(name=found.name, shape=shape, dtype=dtype_of(found.type))


def _first(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]

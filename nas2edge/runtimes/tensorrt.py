"""TensorRT engines on this machine's GPU, by the vendor's package or TensorRT-RTX, whichever loads the file."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from time import perf_counter, thread_time
from types import ModuleType
from typing import Any, final

import numpy as np

from nas2edge.errors import InputError, RuntimeFailedError
from nas2edge.runtimes.cuda_memory import Memory, find_memory
from nas2edge.runtimes.registry import TENSORRT_PACKAGES
from nas2edge.runtimes.session import Array, Session, Tensor, Timed

logger = logging.getLogger(__name__)


def open_session(model: Path | bytes, *, threads: int) -> Session:
    """Loads an engine with one input and one output."""
    if isinstance(model, bytes):
        raise InputError("TensorRT runs engines, and this is an ONNX model; build one with: nas2edge export --to trt")
    elsewhere = (
        f"on the engine's own device, time it with: trtexec --loadEngine={model} --noDataTransfers --useSpinWait"
    )
    memory = find_memory()
    if memory is None:
        raise RuntimeFailedError(
            f"{model} is a TensorRT engine, and no CUDA GPU can be used here (that takes torch with CUDA, or "
            f"cuda-python); {elsewhere}"
        )
    said = []
    for name in TENSORRT_PACKAGES:  # an engine loads in the package and version that built it
        try:
            trt = importlib.import_module(name)
            log = make_log(trt)
            engine = trt.Runtime(log).deserialize_cuda_engine(model.read_bytes())
        except (ImportError, OSError, RuntimeError, AttributeError, TypeError) as err:
            # A placeholder has no Runtime, and the bindings raise TypeError where the library makes none.
            said.append(f"{name}: {first_line(err)}")
            continue
        if engine is not None:
            return _EngineSession(trt, log, engine, memory)
        said.append(f"{name} {trt.__version__}: {log.last}")
    raise RuntimeFailedError(f"{model} does not load ({'; '.join(said)}); {elsewhere}")


def first_line(err: Exception) -> str:
    """Returns the first line of an error's message, or its type's name if it has none."""
    return (str(err).splitlines() or [type(err).__name__])[0]


def make_log(trt: ModuleType) -> Any:
    """Returns a logger for a package that keeps its complaints, as `problems` and `last`."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps what TensorRT complains of, and hands all on to logging."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.problems: list[str] = []

        @property
        def last(self) -> str:
            """What it complained of last."""
            return self.problems[-1] if self.problems else "it gave no reason"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.problems.append(message)
            logger.debug("%s: %s", severity, message)

    return Log()


@final
class _EngineSession(Session):
    """An engine and its one execution context.

    Args:
        trt: The package that loaded it.
        log: Made for the package.
        engine: As loaded.
        memory: On the GPU.
    """

    def __init__(self, trt: ModuleType, log: Any, engine: Any, memory: Memory) -> None:
        self._log, self._engine, self._memory = log, engine, memory
        self._context = engine.create_execution_context()
        self.runtime, self.threads = f"{trt.__name__} {trt.__version__}", 0
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        (source,) = (name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
        (target,) = (name for name in names if name != source)
        self.input, self.output = (
            Tensor(
                name=name,
                shape=tuple(size if size >= 0 else None for size in engine.get_tensor_shape(name)),
                dtype=np.dtype(trt.nptype(engine.get_tensor_dtype(name))),
            )
            for name in (source, target)
        )

    def run(self, images: Array) -> Array:
        """Runs as many images at once as the engine's profile allows."""
        most = self.input.shape[0] or self._most()
        return np.concatenate([self._once(images[i : i + most]) for i in range(0, len(images), most)])

    def prepare(self, images: Array) -> Timed:
        self._bind(images)

        def timed(n: int) -> tuple[float, float]:
            worked, start = thread_time(), perf_counter()
            for _ in range(n):
                self._execute()
                self._memory.wait()
            return perf_counter() - start, thread_time() - worked

        return timed

    def close(self) -> None:
        self._memory.free()

    def _once(self, images: Array) -> Array:
        target, like = self._bind(images)
        self._execute()
        found = self._memory.download(target, like)
        self._memory.free()
        return found

    def _bind(self, images: Array) -> tuple[Any, Array]:
        """Lays the input and room for the output onto the GPU; returns the output's handle, and what it is like."""
        self._context.set_input_shape(self.input.name, images.shape)
        like = np.zeros(tuple(self._context.get_tensor_shape(self.output.name)), self.output.dtype)
        self._held = self._memory.upload(images), self._memory.upload(like)
        for name, handle in zip((self.input.name, self.output.name), self._held, strict=True):
            self._context.set_tensor_address(name, self._memory.address(handle))
        return self._held[1], like

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._memory.stream()):
            raise RuntimeFailedError(f"{self.runtime} fails to run the engine: {self._log.last}")

    def _most(self) -> int:
        """The greatest batch size of the one profile."""
        return int(tuple(self._engine.get_tensor_profile_shape(self.input.name, 0)[2])[0])

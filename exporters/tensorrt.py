"""TensorRT engines: by the vendor's TensorRT where it works, else ahead of time by TensorRT-RTX.

Both have one Python API; what differs between versions is asked for by name, never by version or number. TensorRT-RTX
comes as a self-contained wheel and builds engines for desktop GPUs without one in the machine; it has no SM87, so what
it builds is no Jetson engine. Engines depend on versions and GPU and differ from build to build: the file is written as
it is, never hashed, and described in a JSON file beside it.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import logging
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, final

import numpy as np
import numpy.typing as npt

from nas2edge.errors import EngineNotBuiltError
from nas2edge.export.exporter import Artefact, BatchRange, Exporter
from nas2edge.files import write_json

ENGINE_NAME = "model.engine"
RTX_CAPABILITIES = ("SM86", "SM89")
_WORKSPACE_BYTES = 1 << 30
_SHOWN_ERRORS = 5

logger = logging.getLogger(__name__)

HOW_TO_GET = """\
- on a Jetson: JetPack ships TensorRT; run this command there, or: trtexec --onnx=model.onnx --saveEngine=model.engine
- on a machine with an NVIDIA GPU: install TensorRT from NVIDIA's package index (the package 'tensorrt' on PyPI is a
  placeholder that fetches its libraries from there)
- anywhere on x86-64, for desktop GPUs: pip install 'nas2edge[trt-rtx]'"""


@final
class TensorRTExporter(Exporter):
    """Builds an engine, strongly typed where TensorRT knows that: its precision is that of the ONNX file."""

    name = "trt"
    hashable = False

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Builds `model.engine` and `model.engine.json` beside the model."""
        trt, log, builder = _working_builder()
        plan = _build(trt, log, builder, model, batch)
        engine = model.with_name(ENGINE_NAME)
        engine.write_bytes(plan)
        rtx = _is_rtx(trt)
        tried = _load(trt, log, plan) if has_gpu() else "not run here: no GPU"
        notes: dict[str, Any] = {
            "builder": trt.__name__,
            "version": trt.__version__,
            "onnx_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "precision": "float32" + (", strongly typed" if _knows_strong_types(trt) else ""),
            "batch": list(batch),
            "compute_capabilities": list(RTX_CAPABILITIES) if rtx else ["of the GPU that built it"],
            "platform": f"{platform.system()} {platform.machine()}",
            "tried": tried,
            "size_bytes": len(plan),
        }
        sidecar = engine.with_name(f"{ENGINE_NAME}.json")
        write_json(sidecar, {"format": "nas2edge.engine", "version": 1, "engine": {"file": engine.name, **notes}})
        where = f"{' and '.join(RTX_CAPABILITIES)} GPUs, not for a Jetson" if rtx else "this machine's kind of GPU"
        return Artefact(
            target=self.name,
            files=(engine, sidecar),
            runtime=f"{trt.__name__} {trt.__version__}",
            notes=notes,
            why_not_run=f"built for {where}; {tried}",
        )

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Raises EngineNotBuiltError: engines are built here and run on the device."""
        raise EngineNotBuiltError(f"{artefact.files[0]} cannot be run here: {artefact.why_not_run}")


def has_gpu() -> bool:
    """Returns whether an NVIDIA driver with a GPU answers."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return bool(driver.cuInit(0) == 0)


def _working_builder() -> tuple[ModuleType, Any, Any]:
    """Returns the first TensorRT that makes a builder: the vendor's needs a GPU for that, TensorRT-RTX does not.

    Raises:
        EngineNotBuiltError: None does; says what was seen of each, and how to get one.
    """
    seen = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            trt = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as err:
            seen.append(f"{name}: {_first_line(err)}")
            continue
        if not hasattr(trt, "Builder") or not hasattr(trt, "OnnxParser"):
            seen.append(f"{name}: it imports but has no Builder; it is a placeholder without its libraries")
            continue
        log = _make_log(trt)
        try:
            return trt, log, trt.Builder(log)
        except (TypeError, RuntimeError) as err:  # what the bindings raise where the library returns nothing
            said = log.problems[-1] if log.problems else _first_line(err)
            seen.append(f"{name} {trt.__version__}: it makes no builder ({said})")
    raise EngineNotBuiltError(
        f"no engine was built: no TensorRT works here ({'; '.join(seen)}). The ONNX file is complete.\n"
        f"To build an engine:\n{HOW_TO_GET}"
    )


def _build(trt: ModuleType, log: Any, builder: Any, model: Path, batch: BatchRange) -> bytes:
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.read_bytes()):
        raise EngineNotBuiltError(
            f"{trt.__name__} {trt.__version__} does not read the ONNX file: {_parser_errors(parser)}. "
            "Try another --opset: TensorRT before 8.4 reads up to 13, before 10 up to 17"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if _is_rtx(trt):
        config.num_compute_capabilities = len(RTX_CAPABILITIES)
        for i, capability in enumerate(RTX_CAPABILITIES):
            config.set_compute_capability(getattr(trt.ComputeCapability, capability), i)
    _add_profile(builder, network, config, batch)
    with _cancelled_by_ctrl_c(trt, config):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = "; ".join(log.problems[-3:]) or "it gave no reason"
        raise EngineNotBuiltError(f"{trt.__name__} {trt.__version__} built no engine: {said}")
    return bytes(plan)


def _network_flags(trt: ModuleType) -> int:
    """Strongly typed where that can be said, explicit batch where it must be (before TensorRT 10)."""
    flags = 0
    for name in ("STRONGLY_TYPED", "EXPLICIT_BATCH"):
        if hasattr(trt.NetworkDefinitionCreationFlag, name):
            flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
    return flags


def _knows_strong_types(trt: ModuleType) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _add_profile(builder: Any, network: Any, config: Any, batch: BatchRange) -> None:
    if batch[0] == batch[2]:
        return
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((n, *rest) for n in batch))
    config.add_optimization_profile(profile)


@contextmanager
def _cancelled_by_ctrl_c(trt: ModuleType, config: Any) -> Iterator[None]:
    """Lets Ctrl-C end a build: an exception raised inside the builder's callback would be lost without a trace.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    if not hasattr(trt, "IProgressMonitor") or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = threading.Event()
    config.progress_monitor = monitor = _make_monitor(trt, pressed.is_set)
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        config.progress_monitor = None
        del monitor
    if pressed.is_set():
        raise KeyboardInterrupt


def _make_monitor(trt: ModuleType, cancelled: Callable[[], bool]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Tells the builder after each step whether to go on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            logger.debug("%s: %d steps", phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


def _make_log(trt: ModuleType) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps what the builder complains of, and hands all on to logging."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.problems: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.problems.append(message)
            logger.debug("%s: %s", severity, message)

    return Log()


def _load(trt: ModuleType, log: Any, plan: bytes) -> str:
    """Tries to load an engine on this machine's GPU, and returns how that went.

    Raises:
        EngineNotBuiltError: The GPU that the engine was built on does not load it.
    """
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    if engine is not None:
        return "it loads on this machine's GPU; its outputs were not compared"
    said = log.problems[-1] if log.problems else "it gave no reason"
    if not _is_rtx(trt):
        raise EngineNotBuiltError(f"{trt.__name__} {trt.__version__} does not load the engine that it built: {said}")
    return f"not run here: it does not load on this machine's GPU ({said})"


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    said = [_describe(error) for error in errors[:_SHOWN_ERRORS]]
    more = len(errors) - len(said)
    return ("; ".join(said) or "it gave no reason") + (f"; and {more} more" if more else "")


def _describe(error: Any) -> str:
    """Names the node, which older parsers know by number only, and what the parser said, which may be just "false"."""
    named = error.node_name() if hasattr(error, "node_name") else ""
    operator = f" ({error.node_operator()})" if hasattr(error, "node_operator") else ""
    return f"node {named or error.node()}{operator}: {error.code()}, {error.desc()}"


def _is_rtx(trt: ModuleType) -> bool:
    return trt.__name__.startswith("tensorrt_rtx")


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]

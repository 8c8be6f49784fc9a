"""Engines by Python: the vendor's `tensorrt`, which needs a GPU, or `tensorrt_rtx`, which builds without one.

Both have one API; what differs between versions is asked for by name, never by version or number.
"""

from __future__ import annotations

import importlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from nas2edge.errors import EngineNotBuiltError, InputError
from nas2edge.export.exporter import BatchRange
from nas2edge.files import atomic_path
from nas2edge.runtimes.cuda_memory import find_memory
from nas2edge.runtimes.gpu import Gpu, find_gpu
from nas2edge.runtimes.registry import TENSORRT_PACKAGES
from nas2edge.runtimes.tensorrt import first_line, make_log

from ._common import precision_of
from ._tensorrt_engine import Built, default_timing_cache, this_platform

VENDOR, RTX = TENSORRT_PACKAGES
RTX_CAPABILITIES = ("8.6", "8.9")
_WORKSPACE_BYTES = 1 << 30
_SHOWN_ERRORS = 5

logger = logging.getLogger(__name__)


class NoBuilderError(Exception):
    """Raised when none of the packages makes a builder; says what was seen of each."""


def working_builder(names: Sequence[str]) -> tuple[ModuleType, Any, Any]:
    """Returns the first package that makes a builder, its log and the builder.

    Raises:
        NoBuilderError: None does.
    """
    seen = []
    for name in names:
        try:
            trt = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as err:
            seen.append(f"{name}: {first_line(err)}")
            continue
        if not hasattr(trt, "Builder") or not hasattr(trt, "OnnxParser"):
            seen.append(f"{name}: it imports but has no Builder; it is a placeholder without its libraries")
            continue
        log = make_log(trt)
        try:
            return trt, log, trt.Builder(log)
        except (TypeError, RuntimeError) as err:  # what the bindings raise where the library returns nothing
            said = log.problems[-1] if log.problems else first_line(err)
            seen.append(f"{name} {trt.__version__}: it makes no builder ({said})")
    raise NoBuilderError("; ".join(seen))


def build(
    trt: ModuleType,
    log: Any,
    builder: Any,
    model: Path,
    engine: Path,
    *,
    batch: BatchRange,
    timing_cache: Path | None,
    on_progress: Callable[[str], None],
) -> Built:
    """Builds an engine and writes it as it is.

    Args:
        trt: The package.
        log: Made by `make_log`.
        builder: Of the package.
        model: The ONNX file.
        engine: Where to write the engine.
        batch: Batch sizes that it must take.
        timing_cache: File of kernel timings to read and extend; None for that of the user.
        on_progress: Told what the builder is at.

    Raises:
        EngineNotBuiltError: The package does not read the model, or builds no engine, or does not load it again.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    rtx, gpu = is_rtx(trt), find_gpu()
    if rtx and timing_cache:
        raise InputError("TensorRT-RTX keeps no kernel timings; leave --timing-cache out, or use another --builder")
    content = model.read_bytes()
    network, config = _network(trt, log, builder, content), builder.create_builder_config()
    _configure(trt, config, onnx.load_from_string(content))
    _add_profile(builder, network, config, batch)
    cache = timing_cache or (default_timing_cache(trt.__version__, gpu) if gpu and not rtx else None)
    if cache:
        _read_timings(config, cache)
    with _watched(trt, config, on_progress):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = "; ".join(log.problems[-3:]) or "it gave no reason"
        raise EngineNotBuiltError(f"{trt.__name__} {trt.__version__} built no engine: {said}")
    engine.write_bytes(bytes(plan))
    details = {"timing_cache": _write_timings(config, cache)} if cache else {}
    return Built(
        runtime=f"{trt.__name__} {trt.__version__}",
        compute_capabilities=RTX_CAPABILITIES if rtx else (gpu.compute_capability if gpu else "unknown",),
        gpu="" if rtx or not gpu else gpu.name,
        platform=this_platform(),
        strongly_typed=_knows_strong_types(trt),
        why_not_run=_why_not_run(trt, log, bytes(plan), gpu),
        details=details,
    )


def is_rtx(trt: ModuleType) -> bool:
    """Returns whether a package is TensorRT-RTX."""
    return trt.__name__.startswith(RTX)


def parse_with(trt: ModuleType, content: bytes) -> list[str]:
    """Returns what a package's own ONNX parser has against a model; nothing if it reads it."""
    log = make_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    return [] if parser.parse(content) else _parser_errors(parser) or ["it gave no reason"]


def _network(trt: ModuleType, log: Any, builder: Any, content: bytes) -> Any:
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        errors = _parser_errors(parser)
        more = len(errors) - _SHOWN_ERRORS
        said = ("; ".join(errors[:_SHOWN_ERRORS]) or "it gave no reason") + (f"; and {more} more" if more > 0 else "")
        raise EngineNotBuiltError(
            f"{trt.__name__} {trt.__version__} does not read the ONNX file: {said}. "
            "Try another --opset: TensorRT before 8.4 reads up to 13, before 10 up to 17"
        )
    return network


def _configure(trt: ModuleType, config: Any, model: onnx.ModelProto) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    flags: Any = getattr(trt, "BuilderFlag", None)
    if hasattr(flags, "TF32"):
        config.clear_flag(flags.TF32)  # float32 means float32: TF32 keeps ten bits of the mantissa
    if not _knows_strong_types(trt):  # before TensorRT 9, lower precision must be allowed as well
        for precision, flag in (("float16", "FP16"), ("int8", "INT8"), ("int8", "FP16")):
            if precision_of(model) == precision and hasattr(flags, flag):
                config.set_flag(getattr(flags, flag))
    if is_rtx(trt):
        config.num_compute_capabilities = len(RTX_CAPABILITIES)
        for i, capability in enumerate(RTX_CAPABILITIES):
            name = f"SM{capability.replace('.', '')}"
            config.set_compute_capability(getattr(trt.ComputeCapability, name), i)


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


def _read_timings(config: Any, file: Path) -> None:
    """Gives the builder the timings of a file; those of another version or GPU are refused by it, and begun anew."""
    try:
        kept = file.read_bytes()
    except FileNotFoundError:
        kept = b""
    except OSError as err:
        raise InputError(f"cannot read the timing cache {file}: {err.strerror}; give another --timing-cache") from err
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        logger.info("the kernel timings in %s are of another TensorRT or GPU; they are taken anew", file)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _write_timings(config: Any, file: Path) -> str:
    """Writes the timings back; that they cannot be written does not cost the engine."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as part:
            part.write_bytes(bytes(config.get_timing_cache().serialize()))
    except (OSError, InputError) as err:
        return f"not written: {err}"
    return file.name


@contextmanager
def _watched(trt: ModuleType, config: Any, on_progress: Callable[[str], None]) -> Iterator[None]:
    """Tells how a build goes on, and lets Ctrl-C end it: an exception inside the builder's callback would be lost.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    if not hasattr(trt, "IProgressMonitor"):
        yield
        return
    pressed = threading.Event()
    config.progress_monitor = monitor = _make_monitor(trt, pressed.is_set, on_progress)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.set()) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
        config.progress_monitor = None
        del monitor
    if pressed.is_set():
        raise KeyboardInterrupt


def _make_monitor(trt: ModuleType, cancelled: Callable[[], bool], on_progress: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Tells the builder after each step whether to go on, and whoever listens how far it is."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            logger.debug("%s: %d steps", phase_name, num_steps)
            self._steps[phase_name] = num_steps
            on_progress(f"{phase_name}, 0 of {num_steps}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            on_progress(f"{phase_name}, {step + 1} of {self._steps.get(phase_name, step + 1)}")
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


def _why_not_run(trt: ModuleType, log: Any, plan: bytes, gpu: Gpu | None) -> str:
    """Tries to load an engine on this machine's GPU, and returns why it cannot be run; empty if it can.

    Raises:
        EngineNotBuiltError: The GPU that the engine was built on does not load it.
    """
    rtx = is_rtx(trt)
    capabilities = " and ".join(f"SM{capability.replace('.', '')}" for capability in RTX_CAPABILITIES)
    where = f"built for {capabilities} GPUs, not for a Jetson" if rtx else "built for this machine's kind of GPU"
    if gpu is None:
        return f"{where}; not run here: no GPU"
    if trt.Runtime(log).deserialize_cuda_engine(plan) is None:
        said = log.last
        if rtx:
            return f"{where}; not run here: it does not load on this machine's GPU ({said})"
        raise EngineNotBuiltError(f"{trt.__name__} {trt.__version__} does not load the engine that it built: {said}")
    if find_memory() is None:
        return f"{where}; it loads on this machine's GPU, but was not run: that needs torch with CUDA, or cuda-python"
    return ""


def _parser_errors(parser: Any) -> list[str]:
    return [_describe(parser.get_error(i)) for i in range(parser.num_errors)]


def _describe(error: Any) -> str:
    """Names the node, which older parsers know by number only, and what the parser said, which may be just "false"."""
    named = error.node_name() if hasattr(error, "node_name") else ""
    operator = f" ({error.node_operator()})" if hasattr(error, "node_operator") else ""
    return f"node {named or error.node()}{operator}: {error.code()}, {error.desc()}"

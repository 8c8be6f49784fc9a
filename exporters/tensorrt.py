"""TensorRT engines: by the vendor's TensorRT where it is installed, else ahead of time by TensorRT-RTX.

Both have one Python API. TensorRT-RTX comes as a self-contained wheel and builds engines for desktop GPUs without one
in the machine; it has no SM87, so what it builds is no Jetson engine. Engines depend on versions and GPU and differ
from build to build: the file is written as it is, never hashed, and described in a JSON file beside it.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
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

logger = logging.getLogger(__name__)

HOW_TO_GET = """\
- on a Jetson: JetPack ships TensorRT; run this command there, or: trtexec --onnx=model.onnx --saveEngine=model.engine
- on a machine with an NVIDIA GPU: install TensorRT from NVIDIA's package index (the package 'tensorrt' on PyPI is a
  placeholder that fetches its libraries from there)
- anywhere on x86-64, for desktop GPUs: pip install 'nas2edge[trt-rtx]'"""


@final
class TensorRTExporter(Exporter):
    """Builds an engine, strongly typed: its precision is that of the ONNX file."""

    name = "trt"
    hashable = False

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Builds `model.engine` and `model.engine.json` beside the model."""
        trt = find_tensorrt()
        plan = _build(trt, model, batch)
        engine = model.with_name(ENGINE_NAME)
        engine.write_bytes(plan)
        rtx = _is_rtx(trt)
        notes: dict[str, Any] = {
            "builder": trt.__name__,
            "version": trt.__version__,
            "onnx_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "precision": "float32, strongly typed",
            "batch": list(batch),
            "compute_capabilities": list(RTX_CAPABILITIES) if rtx else ["of the GPU that built it"],
            "size_bytes": len(plan),
        }
        sidecar = engine.with_name(f"{ENGINE_NAME}.json")
        write_json(sidecar, {"format": "nas2edge.engine", "version": 1, **notes, "runtime_version": trt.__version__})
        where = f"for {' and '.join(RTX_CAPABILITIES)} GPUs; not a Jetson engine" if rtx else "for this machine's GPU"
        return Artefact(
            target=self.name,
            files=(engine, sidecar),
            runtime=f"{trt.__name__} {trt.__version__}",
            notes=notes,
            why_not_run=f"built {where}; not run here: compare with parity.npz where it runs",
        )

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Raises EngineNotBuiltError: engines are built here and run on the device."""
        raise EngineNotBuiltError(f"{artefact.files[0]} cannot be run here: {artefact.why_not_run}")


def find_tensorrt() -> ModuleType:
    """Returns the vendor's tensorrt module if it works, else tensorrt_rtx.

    Raises:
        EngineNotBuiltError: Neither is installed; says how to get one.
    """
    seen = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as err:
            seen.append(f"{name}: {err}")
            continue
        if hasattr(module, "Builder") and hasattr(module, "OnnxParser"):
            return module
        seen.append(f"{name}: it imports but has no Builder; it is a placeholder without its libraries")
    raise EngineNotBuiltError(
        "no engine was built, since TensorRT is not installed here ("
        + "; ".join(seen)
        + "). The ONNX file is complete.\n"
        "To build an engine:\n" + HOW_TO_GET
    )


def _build(trt: ModuleType, model: Path, batch: BatchRange) -> bytes:
    log = _make_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.read_bytes()):
        problems = "; ".join(_describe(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineNotBuiltError(f"{trt.__name__} {trt.__version__} does not read the ONNX file: {problems}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if _is_rtx(trt):
        config.num_compute_capabilities = len(RTX_CAPABILITIES)
        for i, capability in enumerate(RTX_CAPABILITIES):
            config.set_compute_capability(getattr(trt.ComputeCapability, capability), i)
    _add_profile(builder, network, config, batch)
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


def _add_profile(builder: Any, network: Any, config: Any, batch: BatchRange) -> None:
    if batch[0] == batch[2]:
        return
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((n, *rest) for n in batch))
    config.add_optimization_profile(profile)


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


def _describe(error: Any) -> str:
    return f"node {error.node()}: {error.desc() or error.code()}"


def _is_rtx(trt: ModuleType) -> bool:
    return trt.__name__.startswith("tensorrt_rtx")

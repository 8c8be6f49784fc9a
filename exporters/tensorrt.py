"""TensorRT engines, by whichever builder works: Python, trtexec, a device over ssh, or TensorRT-RTX without a GPU.

TensorRT-RTX comes as a self-contained wheel and builds engines for desktop GPUs without one in the machine; it has no
SM87, so what it builds is no Jetson engine. Engines depend on versions and GPU and differ from build to build: the file
is written as it is, never altered and never hashed, and described in a JSON file beside it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.errors import EngineNotBuiltError, InputError
from nas2edge.export.exporter import Artefact, BatchRange, Exporter
from nas2edge.files import write_json
from nas2edge.runtimes import open_session, run_all
from nas2edge.runtimes.gpu import find_gpu

from ._common import lint_first, precision_of
from ._tensorrt_engine import Built
from ._tensorrt_hosts import Host, LocalHost, SshHost
from ._tensorrt_python import RTX, VENDOR, NoBuilderError, build, parse_with, working_builder
from ._tensorrt_tool import Trtexec, build_by_tool, find_trtexec, run_by_tool

BUILDERS = ("python", "trtexec", "rtx", "ssh://USER@HOST")
_PACKAGES = {"python": (VENDOR,), "rtx": (RTX,)}
_SSH = "ssh://"

HOW_TO_GET = """\
- on a Jetson: JetPack ships TensorRT; build from here with --builder ssh://USER@HOST, or run this command there
- on a machine with an NVIDIA GPU: install TensorRT from NVIDIA's package index (the package 'tensorrt' on PyPI is a
  placeholder that fetches its libraries from there), or put its trtexec into the PATH
- anywhere on x86-64, for desktop GPUs: pip install 'nas2edge[trt-rtx]'"""


@final
class TensorRTExporter(Exporter):
    """Builds an engine, strongly typed where TensorRT knows that: its precision is that of the ONNX file.

    Args:
        builder: "python" for the vendor's package, "trtexec", "rtx", or "ssh://USER@HOST[:PORT]" for trtexec on a
            device; empty for the first of python, trtexec and rtx that works.
        timing_cache: File of kernel timings, which shorten the next build and make it more alike; empty for one per
            user, version of TensorRT and GPU.

    Raises:
        InputError: There is no such builder.
    """

    name = "trt"
    hashable = False
    options = frozenset({"builder", "timing_cache"})

    def __init__(self, builder: str = "", timing_cache: str = "") -> None:
        if builder and builder not in BUILDERS and not builder.startswith(_SSH):
            raise InputError(f"unknown builder {builder!r}; expected one of {', '.join(BUILDERS)}")
        self._builder = builder
        self._host: Host = SshHost(builder) if builder.startswith(_SSH) else LocalHost()
        self._timing_cache = Path(timing_cache) if timing_cache else None
        if self._timing_cache and not self._timing_cache.absolute().parent.is_dir():
            raise InputError(f"there is no folder {self._timing_cache.absolute().parent} for the timing cache")

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Builds `model.engine` and `model.engine.json` beside the model."""
        engine = model.with_suffix(".engine")
        tool = self._tool()
        if tool:
            name = "ssh" if isinstance(self._host, SshHost) else "trtexec"
            warnings = lint_first(model, f"trt@{tool.dotted}", name=self.name)
            built = build_by_tool(
                tool, model, engine, batch=batch, timing_cache=self._timing_cache, on_progress=self.on_progress
            )
        else:
            name, built, warnings = self._by_python(model, engine, batch)
        sidecar = model.with_suffix(".engine.json")
        notes = {**_notes(name, built, model, engine, batch), "lint": warnings}
        write_json(sidecar, {"format": "nas2edge.engine", "version": 1, "engine": {"file": engine.name, **notes}})
        return Artefact(
            target=self.name,
            files=(engine, sidecar),
            runtime=built.runtime,
            notes=notes,
            why_not_run=built.why_not_run,
        )

    def ask(self, model: Path) -> tuple[str, list[str]] | None:
        """Asks the parser of the vendor's TensorRT, or of TensorRT-RTX, which needs no GPU."""
        try:
            trt, _, _ = working_builder(_PACKAGES.get(self._builder, (VENDOR, RTX)))
        except NoBuilderError:
            return None
        return f"{trt.__name__} {trt.__version__}", parse_with(trt, model.read_bytes())

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the engine where it was built: on this machine's GPU, or on the device by trtexec.

        Raises:
            EngineNotBuiltError: It cannot be run from here, for the reason that the artefact gives.
            RuntimeFailedError: It does not load, or fails.
        """
        engine = artefact.files[0]
        if artefact.why_not_run:
            raise EngineNotBuiltError(f"{engine} cannot be run here: {artefact.why_not_run}")
        if artefact.notes["builder"] in ("ssh", "trtexec"):
            tool = find_trtexec(self._host)
            if tool is None:
                raise EngineNotBuiltError(f"{engine} cannot be run: {self._host.name} has no trtexec any more")
            return run_by_tool(tool, engine, engine.with_suffix(".onnx"), images, self.on_progress)
        with open_session(engine, runtime="tensorrt") as session:
            return run_all(session, images).astype(np.float32)

    def _tool(self) -> Trtexec | None:
        """Returns the trtexec to build with; None to build by Python."""
        if self._builder in _PACKAGES:
            return None
        if self._builder:
            tool = find_trtexec(self._host)
            if tool is None:
                raise EngineNotBuiltError(
                    f"no engine was built: {self._host.name} has no trtexec, in its PATH or in /usr/src/tensorrt/bin. "
                    "The ONNX file is complete; on a Jetson, install it with: sudo apt install libnvinfer-bin"
                )
            return tool
        if find_gpu() is None:
            return None
        try:
            working_builder((VENDOR,))
        except NoBuilderError:
            return find_trtexec(self._host)
        return None

    def _by_python(self, model: Path, engine: Path, batch: BatchRange) -> tuple[str, Built, list[str]]:
        names = _PACKAGES.get(self._builder, (VENDOR, RTX))
        try:
            trt, log, builder = working_builder(names)
        except NoBuilderError as err:
            raise EngineNotBuiltError(
                f"no engine was built: no TensorRT works here ({err}). The ONNX file is complete.\n"
                f"To build an engine:\n{HOW_TO_GET}"
            ) from err
        rtx = trt.__name__ == RTX
        warnings = lint_first(model, "trt-rtx" if rtx else f"trt@{trt.__version__}", name=self.name)
        built = build(trt, log, builder, model, engine, batch=batch, timing_cache=self._timing_cache,
                      on_progress=self.on_progress)  # fmt: skip
        return "rtx" if rtx else "python", built, warnings


def _notes(builder: str, built: Built, model: Path, engine: Path, batch: BatchRange) -> dict[str, Any]:
    typed = ", strongly typed" if built.strongly_typed else ""
    return {
        "builder": builder,
        "runtime": built.runtime,
        "gpu": built.gpu or None,
        "compute_capabilities": list(built.compute_capabilities),
        "platform": built.platform,
        "precision": precision_of(onnx.load(model)) + typed,
        "batch": list(batch),
        "onnx_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "size_bytes": engine.stat().st_size,
        **built.details,
    }

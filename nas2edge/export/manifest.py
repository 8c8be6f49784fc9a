"""What a bundle says of itself: manifest.json, the metadata inside the ONNX file, and commands to run it.

Nothing here depends on when or where the export ran, so that equal exports are equal files.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nas2edge._version import __version__
from nas2edge.costs import Costs
from nas2edge.export.bundle import FORMAT, MANIFEST_NAME, MODEL_NAME, VERSION
from nas2edge.export.exporter import Artefact
from nas2edge.export.preprocess import PIXELS_NAME, rule_of
from nas2edge.export.request import ExportRequest
from nas2edge.graph import INPUT_NAME
from nas2edge.subnet_file import subnet_to_dict

_TYPED = {
    "fp32": "",
    "fp16": " --stronglyTyped  # before TensorRT 9: --fp16 instead",
    "int8": " --stronglyTyped  # before TensorRT 9: --int8 --fp16 instead",
}
_TOOLS = ("torch", "numpy", "onnx", "onnxruntime", "onnxsim")

_COMPARE = """\
python - <<'END'
import numpy as np, onnxruntime as ort
recorded = np.load("parity.npz")
session = ort.InferenceSession("MODEL", providers=["CPUExecutionProvider"])
source = session.get_inputs()[0]
size = source.shape[0] if isinstance(source.shape[0], int) else 1
got = [session.run(None, {source.name: np.repeat(image[None], size, axis=0)})[0][0] for image in recorded["images"]]
print("greatest difference:", abs(np.stack(got) - recorded["RECORDED"]).max())
END"""


def manifest_dict(
    folder: Path, request: ExportRequest, *, costs: Costs, artefacts: Sequence[Artefact], unhashed: Sequence[str]
) -> dict[str, Any]:
    """Returns manifest.json for the files that lie in a folder.

    Args:
        folder: The bundle.
        request: What was asked for.
        costs: Of one image.
        artefacts: What can be run.
        unhashed: Names of files that differ from build to build, of which a hash would mean nothing.
    """
    supernet, resolution = request.supernet.info, request.file.subnet.resolution
    return {
        "format": FORMAT,
        "version": VERSION,
        "targets": list(request.targets),
        "precisions": list(request.precisions),
        "subnet": subnet_to_dict(request.file),
        "supernet": {"source": supernet.source, "sha256": supernet.sha256},
        "classes": list(request.classes),
        "preprocess": rule_of(supernet.preprocess, resolution, pixels=request.with_preprocess),
        "opset": request.opset,
        "batch": list(request.batch),
        "costs": asdict(costs),
        "artefacts": [_artefact_dict(artefact) for artefact in artefacts],
        "commands": run_commands(request),
        "files": {
            path.name: _file_dict(path, hashed=path.name not in unhashed)
            for path in sorted(folder.iterdir())
            if path.name != MANIFEST_NAME
        },
        "tool": {"nas2edge": __version__, "python": platform.python_version(), **tool_versions()},
    }


def model_metadata(request: ExportRequest) -> dict[str, str]:
    """Returns what the ONNX file carries of its origin and of how to prepare its input."""
    file, supernet = request.file, request.supernet.info
    rule = rule_of(supernet.preprocess, file.subnet.resolution, pixels=request.with_preprocess)
    return {
        "nas2edge.labels": json.dumps(list(request.classes)),
        "nas2edge.preprocess": json.dumps(rule),
        "nas2edge.space": file.space.name,
        "nas2edge.subnet": json.dumps(file.subnet.to_dict()),
        "nas2edge.subnet_id": file.subnet.id,
        "nas2edge.supernet_sha256": supernet.sha256,
        "nas2edge.version": __version__,
    }


def run_commands(request: ExportRequest) -> dict[str, str]:
    """Returns what to type in the bundle's folder, by purpose."""
    commands = {}
    for precision in dict.fromkeys(("fp32", *request.precisions)):
        name, recorded = model_name(precision), recorded_name(precision)
        what = f"Compare {name} with the recorded outputs"
        commands[what] = _COMPARE.replace("MODEL", name).replace("RECORDED", recorded)
    if "trt" in request.targets:
        side, low_high = request.file.subnet.resolution, request.batch[0] != request.batch[2]
        source, rest = (
            (PIXELS_NAME, f"{side}x{side}x3") if request.with_preprocess else (INPUT_NAME, f"3x{side}x{side}")
        )
        shapes = "".join(
            f" --{which}Shapes={source}:{n}x{rest}"
            for which, n in zip(("min", "opt", "max"), request.batch, strict=True)
            if low_high
        )
        for precision in dict.fromkeys(request.precisions):
            name = model_name(precision)
            command = f"trtexec --onnx={name} --saveEngine=device.engine{shapes}{_TYPED[precision]}"
            commands[f"Build and time an engine of {name} on a Jetson or another machine with TensorRT"] = command
    return commands


def model_name(precision: str) -> str:
    """Returns the name of the ONNX file of a precision."""
    return MODEL_NAME if precision == "fp32" else f"model.{precision}.onnx"


def recorded_name(precision: str) -> str:
    """Returns what parity.npz calls the logits of a precision; "logits" are those of the float32 network."""
    return "logits" if precision == "fp32" else f"logits_{precision}"


def facts_of(request: ExportRequest, costs: Costs) -> dict[str, str]:
    """Returns what the report's page says of the network."""
    supernet, side = request.supernet.info, request.file.subnet.resolution
    takes = f"float32 images (N, 3, {side}, {side}), RGB, normalised"
    if request.with_preprocess:
        takes = f"uint8 pixels (N, {side}, {side}, 3), RGB"
    return {
        "sub-network": f"{request.file.subnet.id} of space {request.file.space.name}",
        "weights": f"{supernet.source}, sha256 {supernet.sha256}",
        "input": f"{takes}: see preprocess in {MANIFEST_NAME}",
        "size": f"{costs.macs:,} MACs, {costs.params:,} parameters",
    }


def tool_versions() -> dict[str, str]:
    """Returns the versions of the installed packages that an export goes through."""
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _artefact_dict(artefact: Artefact) -> dict[str, Any]:
    return {
        "target": artefact.target,
        "files": [file.name for file in artefact.files],
        "runtime": artefact.runtime,
        "run_here": not artefact.why_not_run,
        "why_not_run": artefact.why_not_run or None,
        "notes": dict(artefact.notes),
    }


def _file_dict(path: Path, *, hashed: bool) -> dict[str, Any]:
    size = {"bytes": path.stat().st_size}
    return {**size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if hashed else size

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
from nas2edge.export.bundle import FORMAT, MANIFEST_NAME, VERSION
from nas2edge.export.exporter import Artefact, BatchRange
from nas2edge.subnet_file import SubnetFile, subnet_to_dict
from nas2edge.supernet.weights_file import SupernetInfo

_TOOLS = ("torch", "numpy", "onnx", "onnxruntime", "onnxsim")

_COMPARE = """\
python - <<'END'
import numpy as np, onnxruntime as ort
recorded = np.load("parity.npz")
session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
size = session.get_inputs()[0].shape[0]
size = size if isinstance(size, int) else 1
got = [session.run(None, {"images": np.repeat(image[None], size, axis=0)})[0][0] for image in recorded["images"]]
print("greatest difference:", abs(np.stack(got) - recorded["logits"]).max())
END"""


def manifest_dict(
    folder: Path,
    *,
    file: SubnetFile,
    supernet: SupernetInfo,
    targets: Sequence[str],
    opset: int,
    batch: BatchRange,
    costs: Costs,
    artefacts: Sequence[Artefact],
    unhashed: Sequence[str],
) -> dict[str, Any]:
    """Returns manifest.json for the files that lie in a folder.

    Args:
        folder: The bundle.
        file: The sub-network.
        supernet: Where its weights are from.
        targets: What was asked for.
        opset: Of the ONNX file.
        batch: Batch sizes that the artefacts take.
        costs: Of one image.
        artefacts: What can be run.
        unhashed: Names of files that differ from build to build, of which a hash would mean nothing.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "targets": list(targets),
        "subnet": subnet_to_dict(file),
        "supernet": {"source": supernet.source, "sha256": supernet.sha256},
        "classes": list(supernet.classes),
        "preprocess": preprocess_dict(supernet, file.subnet.resolution),
        "opset": opset,
        "batch": list(batch),
        "costs": asdict(costs),
        "artefacts": [_artefact_dict(artefact) for artefact in artefacts],
        "commands": run_commands(targets, batch=batch, resolution=file.subnet.resolution),
        "files": {
            path.name: _file_dict(path, hashed=path.name not in unhashed)
            for path in sorted(folder.iterdir())
            if path.name != MANIFEST_NAME
        },
        "tool": {"nas2edge": __version__, "python": platform.python_version(), **tool_versions()},
    }


def model_metadata(file: SubnetFile, supernet: SupernetInfo) -> dict[str, str]:
    """Returns what the ONNX file carries of its origin and of how to prepare its input."""
    return {
        "nas2edge.labels": json.dumps(list(supernet.classes)),
        "nas2edge.preprocess": json.dumps(preprocess_dict(supernet, file.subnet.resolution)),
        "nas2edge.space": file.space.name,
        "nas2edge.subnet": json.dumps(file.subnet.to_dict()),
        "nas2edge.subnet_id": file.subnet.id,
        "nas2edge.supernet_sha256": supernet.sha256,
        "nas2edge.version": __version__,
    }


def preprocess_dict(supernet: SupernetInfo, resolution: int) -> dict[str, Any]:
    """Returns how an image becomes the input of the network."""
    preprocess = supernet.preprocess
    side = preprocess.image_size
    resize = f"bicubic (a = -0.75, align_corners off, no antialias) from {side} to {resolution}, after normalising"
    return {
        "layout": "NCHW",
        "colour": "RGB",
        "scale": "divide by 255, subtract mean, divide by std",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "crop": side,
        "resize": "none" if side == resolution else resize,
        "resolution": resolution,
    }


def run_commands(targets: Sequence[str], *, batch: BatchRange, resolution: int) -> dict[str, str]:
    """Returns what to type in the bundle's folder, by purpose."""
    commands = {"Compare model.onnx with the recorded outputs": _COMPARE}
    if "trt" in targets:
        shapes = "".join(
            f" --{which}Shapes=images:{n}x3x{resolution}x{resolution}"
            for which, n in zip(("min", "opt", "max"), batch, strict=True)
            if batch[0] != batch[2]
        )
        commands["Build and time an engine on a Jetson or another machine with TensorRT"] = (
            f"trtexec --onnx=model.onnx --saveEngine=device.engine{shapes}"
        )
    return commands


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

"""The stages of the ONNX file: emit, simplify, accuracy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.export.blame import blame, onnx_blocks, torch_blocks
from nas2edge.export.exporter import BatchRange
from nas2edge.export.from_supernet import Frozen, torch_logits
from nas2edge.export.inputs import STORED_IMAGES, Inputs
from nas2edge.export.manifest import model_metadata
from nas2edge.export.proof import Proof
from nas2edge.export.registry import load_exporter
from nas2edge.export.request import ExportRequest
from nas2edge.export.simplify import simplify
from nas2edge.export.stages import FAILED, PASSED, SKIPPED
from nas2edge.graph import network_model

MAX_ACCURACY_CHANGE = 0.1
"""Points of top-1 that a float32 export may gain or lose; one image may flip in any case."""

Array = npt.NDArray[np.float32]


@final
class OnnxFile:
    """An ONNX file of the bundle, run by ONNX Runtime.

    Args:
        path: The file.
        batch: Batch sizes that it takes.
    """

    def __init__(self, path: Path, batch: BatchRange) -> None:
        self.path, self._batch = path, batch
        self._exporter = load_exporter("onnx")

    def write(self, model: onnx.ModelProto) -> None:
        """Writes a model that onnx's own checker accepts."""
        onnx.checker.check_model(model)
        self.path.write_bytes(model.SerializeToString(deterministic=True))

    def run(self, images: Array) -> Array:
        """Returns its logits (N, classes)."""
        return self._exporter.run(self._exporter.build(self.path, batch=self._batch), images)


def emit(request: ExportRequest, frozen: Frozen, file: OnnxFile, inputs: Inputs, proof: Proof) -> onnx.ModelProto:
    """Writes the float32 network, simplified.

    Raises:
        ParityError: It computes something else than the frozen network.
    """
    low, _, high = request.batch
    emitted = network_model(
        frozen.net.layers,
        frozen.folded,
        opset=request.opset,
        batch=low if low == high else None,
        metadata=model_metadata(request.file, request.supernet.info),
    )
    few = inputs.sample[:STORED_IMAGES]

    def blamed(model: onnx.ModelProto) -> Callable[[], str]:
        return lambda: blame(torch_blocks(frozen.net, few), onnx_blocks(model, frozen.net.layers, few))

    file.write(emitted)
    before = file.run(inputs.sample)
    note = f"opset {request.opset}, {len(emitted.graph.node)} nodes"
    proof.compare("onnx", frozen.logits, before, note=note, blamed=blamed(emitted))
    simplified = simplify(emitted)
    if simplified.model is emitted:
        proof.add("simplify", PASSED if simplified.tried else SKIPPED, simplified.note)
        return emitted
    file.write(simplified.model)
    after = file.run(inputs.sample)
    proof.compare("simplify", before, after, note=simplified.note, blamed=blamed(simplified.model))
    return simplified.model


def check_accuracy(frozen: Frozen, file: OnnxFile, inputs: Inputs, proof: Proof) -> dict[str, float]:
    """Measures the top-1 accuracy in percent of the frozen "network" and of the file as "onnx", on so many "images".

    Raises:
        ParityError: They differ by more than `MAX_ACCURACY_CHANGE`.
    """
    right = {"network": 0, "onnx": 0}
    for part in inputs.parts():
        right["network"] += int((torch_logits(frozen.net, part.prepared).argmax(axis=1) == part.labels).sum())
        right["onnx"] += int((file.run(part.prepared).argmax(axis=1) == part.labels).sum())
    before, after = (100.0 * right[name] / inputs.measured for name in ("network", "onnx"))
    allowed = max(MAX_ACCURACY_CHANGE, 100.0 / inputs.measured)
    verdict = PASSED if abs(after - before) <= allowed + 1e-9 else FAILED
    of = "" if inputs.measured == inputs.total else f" of {inputs.total}"
    summary = f"top-1 {before:.2f} % before, {after:.2f} % as ONNX, on {inputs.measured}{of} validation images"
    accuracy = {"network": before, "onnx": after, "images": inputs.measured}
    proof.add("accuracy", verdict, summary, {**accuracy, "max_change": allowed, "passed": verdict == PASSED})
    return accuracy

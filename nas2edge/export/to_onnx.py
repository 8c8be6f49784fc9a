"""The stages of the float32 ONNX file: emit, simplify, its input, its accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.export.blame import blame, onnx_blocks, torch_blocks
from nas2edge.export.from_supernet import Frozen, torch_logits
from nas2edge.export.inputs import STORED_IMAGES, Inputs
from nas2edge.export.manifest import model_metadata
from nas2edge.export.onnx_file import OnnxFile
from nas2edge.export.parity import FLOAT32
from nas2edge.export.preprocess import bake, differs, prepare
from nas2edge.export.proof import Proof
from nas2edge.export.request import ExportRequest
from nas2edge.export.simplify import simplify
from nas2edge.export.stages import FAILED, PASSED, SKIPPED
from nas2edge.export.torch_exporter import torch_model
from nas2edge.export.variant import Variant, accuracy_of
from nas2edge.graph import network_model

MAX_ACCURACY_CHANGE = 0.1
"""Points of top-1 that a float32 export may gain or lose; one image may flip in any case."""
MAX_ROUNDED_CHANGE = 0.5
"""The same, where pixels are rounded after resizing, which the search did not do."""

Array = npt.NDArray[np.float32]


def emit(request: ExportRequest, frozen: Frozen, file: OnnxFile, inputs: Inputs, proof: Proof) -> onnx.ModelProto:
    """Writes the float32 network, simplified.

    Raises:
        ParityError: It computes something else than the frozen network.
    """
    emitted, by = _emitted(request, frozen)
    few = inputs.sample[:STORED_IMAGES]

    def blamed(model: onnx.ModelProto) -> Callable[[], str]:
        return lambda: blame(torch_blocks(frozen.net, few), onnx_blocks(model, frozen.net.layers, few))

    file.write(emitted)
    before = file.run(inputs.sample)
    note = f"opset {request.opset}, {len(emitted.graph.node)} nodes{by}"
    proof.compare("onnx", frozen.logits, before, note=note, blamed=blamed(emitted))
    simplified = simplify(emitted)
    if simplified.model is emitted:
        proof.add("simplify", PASSED if simplified.tried else SKIPPED, simplified.note)
        return emitted
    file.write(simplified.model)
    after = file.run(inputs.sample)
    proof.compare("simplify", before, after, note=simplified.note, blamed=blamed(simplified.model))
    return simplified.model


def _emitted(request: ExportRequest, frozen: Frozen) -> tuple[onnx.ModelProto, str]:
    """Returns the graph, and who wrote it if not we."""
    low, _, high = request.batch
    batch, metadata = low if low == high else None, model_metadata(request)
    layers, folded = frozen.net.layers, frozen.folded
    if request.exporter == "own":
        return network_model(layers, folded, opset=request.opset, batch=batch, metadata=metadata), ""
    model, by = torch_model(frozen.net, folded, opset=request.opset, batch=batch, metadata=metadata)
    return model, f" by torch.onnx.export ({by})"


def bake_preprocess(request: ExportRequest, model: onnx.ModelProto, file: OnnxFile) -> onnx.ModelProto:
    """Writes the network with its preprocessing, if that was asked for."""
    if not request.with_preprocess:
        return model
    baked = bake(model, request.supernet.info.preprocess)
    file.write(baked)
    return baked


def check_input(frozen: Frozen, file: OnnxFile, inputs: Inputs, proof: Proof) -> None:
    """Prepares images by the rule that the file itself carries, and runs it on what it was said to take.

    Raises:
        ParityError: The rule gives another input than the search used, or the file's own preprocessing is another.
    """
    carried = {entry.key: entry.value for entry in onnx.load(file.path).metadata_props}
    rule = json.loads(carried["nas2edge.preprocess"])
    wrong = differs(inputs.fed, prepare(inputs.raw.pixels, rule))
    what = f"{rule['dtype']} {rule['layout']} {rule['colour']}, mean {rule['mean']}, std {rule['std']}"
    proof.compare(
        "input",
        frozen.logits,
        file.run(inputs.fed),
        note=f"as the file says: {what}; resize: {rule['resize']}",
        faults=[f"images prepared by that rule are not those of the search: {wrong}"] if wrong else [],
        blamed=lambda: (
            "the fault lies before the first block, in the preprocessing" if rule["dtype"] == "uint8" else ""
        ),
    )


def check_accuracy(
    frozen: Frozen, model: onnx.ModelProto, file: OnnxFile, inputs: Inputs, proof: Proof, *, rounded: bool
) -> tuple[Variant, float]:
    """Measures the top-1 accuracy of the frozen network and of the file.

    Args:
        frozen: The network.
        model: What the file holds.
        file: The float32 file.
        inputs: The images.
        proof: Gets the stage.
        rounded: Whether the file takes pixels that were rounded after resizing, which moves the accuracy a little.

    Returns:
        The file as a variant, and the frozen network's accuracy in percent.

    Raises:
        ParityError: They differ by more than is allowed.
    """
    expected, measured = [], []
    for part in inputs.parts():
        expected.append(torch_logits(frozen.net, part.prepared))
        measured.append(file.run(part.fed))
    before, after = (accuracy_of(np.concatenate(found), inputs.labels) for found in (expected, measured))
    allowed = max(MAX_ROUNDED_CHANGE if rounded else MAX_ACCURACY_CHANGE, 100.0 / inputs.measured)
    verdict = PASSED if abs(after - before) <= allowed + 1e-9 else FAILED
    of = "" if inputs.measured == inputs.total else f" of {inputs.total}"
    summary = f"top-1 {before:.2f} % before, {after:.2f} % as ONNX, on {inputs.measured}{of} validation images"
    details = {"network": before, "onnx": after, "images": inputs.measured}
    proof.add("accuracy", verdict, summary, {**details, "max_change": allowed, "passed": verdict == PASSED})
    variant = Variant(
        precision="fp32",
        model=model,
        file=file,
        logits=file.run(inputs.fed),
        measured=np.concatenate(measured),
        same=FLOAT32,
        accuracy=after,
    )
    return variant, before

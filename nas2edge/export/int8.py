"""The recipe of int8: which layers are quantised, over which ranges.

Left in float: the first convolution and the classifier (few operations, most of the damage), and squeeze-and-excitation
(its gate and what it multiplies have very different ranges, and it is under 3 % of the operations). Ranges come from
real calibration images, never from the images that the accuracy is measured on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import final

import onnx

from nas2edge.errors import InputError
from nas2edge.export.float16 import belongs, to_float16
from nas2edge.export.inputs import CalibrationImages
from nas2edge.export.onnx_file import run_model
from nas2edge.export.parity import INT8, SAME_INT8, SAME_MIXED, compare
from nas2edge.export.precision import Recipe, Reduced
from nas2edge.export.qdq import audit, op_nodes, quantise
from nas2edge.export.ranges import CALIBRATORS, Observed, float_tensors, greatest_values, observe
from nas2edge.plan import LayerSpec

CALIBRATION_IMAGES = 512
SELECTION_IMAGES = 128
AUTO = "auto"
CLIPPED = 1e-3
"""Share of clipped values from which on a tensor is reported."""


@final
class Int8(Recipe):
    """Quantises a network.

    Args:
        model: In float32.
        layers: Its plan.
        images: Calibration images.
        calibrator: How ranges are chosen: a name of `CALIBRATORS`, or "auto" for the best as measured.
        keep: Blocks or layers (`<block>.<op>`) to leave in float32.
        rest: What all that is not quantised computes in: "fp32" or "fp16".

    Raises:
        InputError: Nothing is left to quantise.
    """

    precision, tolerance, same, always_sensitive = "int8", INT8, SAME_INT8, True

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: Sequence[LayerSpec],
        images: CalibrationImages,
        *,
        calibrator: str = AUTO,
        keep: Collection[str] = (),
        rest: str = "fp32",
    ) -> None:
        self._model, self._images, self._keep = model, images, frozenset(keep)
        self.same = SAME_MIXED if rest == "fp16" else SAME_INT8
        self._greatest = greatest_values(model, float_tensors(model), images.fed) if rest == "fp16" else None
        ops = [op for op in quantisable_ops(layers) if op not in keep and block_of(op) not in keep]
        if not ops:
            raise InputError("nothing is left to quantise; name fewer blocks by --keep-fp32")
        nodes = op_nodes(model)
        self._node_of = {op: nodes[op] for op in ops}
        inputs = {node.name: node.input[0] for node in model.graph.node}
        self._source_of = {op: inputs[node] for op, node in self._node_of.items()}
        sources = list(dict.fromkeys(self._source_of.values()))
        self._seen = observe(model, sources, images.fed)
        self.candidates: dict[str, float] = {}
        self._thresholds: dict[str, float] = {}
        self._calibrator = calibrator
        self._choose(calibrator)

    def blocks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(block_of(op) for op in self._node_of))

    def make(self, kept: Collection[str]) -> Reduced:
        nodes = [node for op, node in self._node_of.items() if block_of(op) not in kept]
        model = quantise(self._model, nodes, self._thresholds)
        faults = audit(model, nodes)
        clipped = self._clipped()
        said = (
            f"{len(nodes)} of {len(op_nodes(self._model))} layers in int8, ranges by {self._calibrator} "
            f"on {len(self._images)} calibration images"
        )
        if clipped:
            said += f", {len(clipped)} tensors clip over {CLIPPED:.1%}"
        details = {
            "calibrator": self._calibrator,
            "calibrators_sqnr_db": self.candidates,
            "calibration_images": len(self._images),
            "quantised": [op for op in self._node_of if block_of(op) not in kept],
            "clipped": clipped,
        }
        if self._greatest is not None:
            asked = {*kept, *self._keep}
            own = {node.name for node in self._model.graph.node}  # quantisers stay with what they feed
            keep = {name: "as asked" for name in own if belongs(name, asked)}
            model = to_float16(model, self._greatest, keep=keep).model
            said += ", the rest in float16"
        return Reduced(model=model, said=said, faults=faults, details=details)

    def _choose(self, calibrator: str) -> None:
        names = list(CALIBRATORS) if calibrator == AUTO else [calibrator]
        if len(names) > 1:
            images = self._images.few(SELECTION_IMAGES)
            reference = run_model(self._model, images)
            for name in names:
                self._thresholds = thresholds(self._seen, name)
                logits = run_model(self.make(()).model, images)
                self.candidates[name] = compare(reference, logits, tolerance=INT8).sqnr_db
            names.sort(key=lambda name: -self.candidates[name])
        self._calibrator = names[0]
        self._thresholds = thresholds(self._seen, names[0])

    def _clipped(self) -> dict[str, float]:
        shares = {name: seen.clipped(self._thresholds[name]) for name, seen in self._seen.items()}
        return {name: share for name, share in shares.items() if share > CLIPPED}


def quantisable_ops(layers: Sequence[LayerSpec]) -> list[str]:
    """Returns the layers that are quantised by default, as `<block>.<op>`, in the order of the network."""
    return [
        f"{layer.name}.{op.name}"
        for layer in layers
        for op in layer.ops
        if layer.op != "first_conv" and op.kind == "conv" and not op.name.startswith("se_")
    ]


def block_of(op: str) -> str:
    """Returns the block of a layer: "stages.0.blocks.1" of "stages.0.blocks.1.project"."""
    return op.rpartition(".")[0]


def thresholds(seen: dict[str, Observed], calibrator: str) -> dict[str, float]:
    """Returns the greatest absolute value to represent, by tensor."""
    return {name: observed.threshold(calibrator) for name, observed in seen.items()}

"""float16 in an ONNX graph: weights and activations in half precision, what would not be safe there in float32.

Kept in float32: reductions over a whole map (a sum of many values passes 65,504 sooner than the values do), nodes whose
inputs or outputs come near that limit on calibration images, nodes whose weights lie beyond it, and the graph's input
and output, so that whoever runs the model need not know. Casts stand wherever the types meet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGEST = float(np.finfo(np.float16).max)
HEADROOM = 8.0
"""Other images may go this far beyond what the calibration images did."""
SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
REDUCTIONS = frozenset(
    {"GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceL2", "Softmax", "LogSoftmax", "LayerNormalization",
     "InstanceNormalization", "BatchNormalization"}
)  # fmt: skip
_QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_SUFFIX = "float16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Halved:
    """A graph in float16.

    Args:
        model: The graph.
        kept: Nodes that compute in float32, by name, each with the reason.
        tiny_weights: Weights that are not zero but below float16's normal numbers, which lose precision.
        weights: All weights that became float16.
    """

    model: onnx.ModelProto
    kept: Mapping[str, str]
    tiny_weights: int
    weights: int


def to_float16(
    model: onnx.ModelProto, greatest: Mapping[str, float], *, keep: Mapping[str, str] | None = None
) -> Halved:
    """Converts a float32 graph whose inputs and outputs stay as they are.

    Args:
        model: The graph, in topological order.
        greatest: Greatest absolute value of its tensors on calibration images, by name.
        keep: Further nodes to keep in float32, each with the reason.
    """
    kept = {**unsafe_nodes(model, greatest), **(keep or {})}
    rewriter = _Rewriter(model, frozenset(kept))
    return Halved(model=rewriter.run(), kept=kept, tiny_weights=rewriter.tiny, weights=rewriter.halved)


def belongs(node: str, names: Collection[str]) -> bool:
    """Returns whether a node is one of the named blocks or layers, or inside one."""
    return any(node == name or node.startswith(f"{name}.") for name in names)


def unsafe_nodes(model: onnx.ModelProto, greatest: Mapping[str, float]) -> dict[str, str]:
    """Returns the nodes that should not compute in float16, each with the reason."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    reasons = {}
    for node in model.graph.node:
        reason = _reason(node, weights, greatest, opset)
        if reason:
            reasons[node.name] = reason
    return reasons


def _reason(
    node: onnx.NodeProto, weights: Mapping[str, npt.NDArray[np.generic]], greatest: Mapping[str, float], opset: int
) -> str:
    if node.op_type in REDUCTIONS:
        return "a reduction"
    if node.op_type in _QUANTISERS and opset < 19:
        return f"opset {opset} has no {node.op_type} of float16"
    if node.name.startswith("preprocess."):
        return "preprocessing"
    for name in node.input:
        if name in weights and np.abs(weights[name].astype(np.float64)).max(initial=0.0) > LARGEST:
            return f"weights beyond {LARGEST:,.0f}"
    reached = max((greatest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
    if not reached <= LARGEST / HEADROOM:
        return f"values up to {reached:,.0f}; float16 ends at {LARGEST:,.0f}"
    return ""


@final
class _Rewriter:
    """Copies a graph node by node, and casts where types meet."""

    def __init__(self, model: onnx.ModelProto, kept: frozenset[str]) -> None:
        self._model, self._kept = model, kept
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._types: dict[str, int] = {end.name: end.type.tensor_type.elem_type for end in model.graph.input}
        self._types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self._ends = {end.name for end in model.graph.output}
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self.tiny = self.halved = 0

    def run(self) -> onnx.ModelProto:
        for node in self._model.graph.node:
            self._convert(node)
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
        copy.graph.node.extend(self._nodes)
        copy.graph.initializer.extend(self._initializers.values())
        return copy

    def _convert(self, node: onnx.NodeProto) -> None:
        wanted = TensorProto.FLOAT if node.name in self._kept else TensorProto.FLOAT16
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input[:] = [self._as(name, wanted) for name in node.input]
        kind = self._output_type(node, wanted)
        for i, name in enumerate(node.output):
            if name in self._ends and kind == TensorProto.FLOAT16:
                made.output[i] = f"{name}.{_SUFFIX}"
                self._types[made.output[i]] = kind
                self._nodes.append(made)
                self._nodes.append(_cast(made.output[i], name, TensorProto.FLOAT))
                self._types[name] = TensorProto.FLOAT
                return
            self._types[name] = kind
        self._nodes.append(made)

    def _output_type(self, node: onnx.NodeProto, wanted: int) -> int:
        if node.op_type == "QuantizeLinear":
            return TensorProto.INT8
        if node.op_type == "Cast":
            return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")
        if node.op_type == "Transpose":
            return self._types.get(node.input[0], wanted)
        return wanted

    def _as(self, name: str, wanted: int) -> str:
        """Returns a tensor of the wanted type; integers are left alone."""
        have = self._types.get(name)
        if name in self._weights:
            return self._weight(name, wanted)
        if have not in (TensorProto.FLOAT, TensorProto.FLOAT16) or have == wanted:
            return name
        if (name, wanted) not in self._casts:
            suffix = _SUFFIX if wanted == TensorProto.FLOAT16 else "float32"
            made = f"{name}.{suffix}"
            self._nodes.append(_cast(name, made, wanted))
            self._casts[name, wanted] = made
        return self._casts[name, wanted]

    def _weight(self, name: str, wanted: int) -> str:
        tensor = self._weights[name]
        if tensor.data_type != TensorProto.FLOAT or wanted == TensorProto.FLOAT:
            self._initializers[name] = tensor
            return name
        made = f"{name}.{_SUFFIX}"
        if made not in self._initializers:
            values = numpy_helper.to_array(tensor)
            self._initializers[made] = numpy_helper.from_array(values.astype(np.float16), made)
            self.tiny += int(((values != 0) & (np.abs(values) < SMALLEST_NORMAL)).sum())
            self.halved += values.size
        return made


def _cast(source: str, made: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [made], name=f"{made}.cast", to=kind)

"""INT8 in an ONNX graph: QuantizeLinear and DequantizeLinear pairs around the inputs of convolutions.

What TensorRT, OpenVINO and ONNX Runtime all read as integer convolutions: symmetric int8 with zero points of 0, weights
as int8 with one scale a channel, activations with one scale a tensor, biases in float (TensorRT refuses ONNX Runtime's
default of INT32 biases, unsigned and asymmetric activations).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from nas2edge.export.ranges import LEVELS

QUANTISABLE = ("Conv", "Gemm")
_SUFFIX = "int8"


def quantise(model: onnx.ModelProto, nodes: Collection[str], thresholds: Mapping[str, float]) -> onnx.ModelProto:
    """Returns a copy in which some convolutions and linear layers take int8 inputs and weights.

    Args:
        model: A float32 graph.
        nodes: Names of the nodes to quantise, each a Conv or Gemm with constant weights.
        thresholds: Greatest absolute value to represent, of every input of these nodes, by tensor.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    made: list[onnx.NodeProto] = []
    pairs: dict[str, str] = {}
    replaced: set[str] = set()
    for node in copy.graph.node:
        if node.name in nodes:
            assert node.op_type in QUANTISABLE, node.op_type
            source, weight = node.input[0], node.input[1]
            if source not in pairs:
                pairs[source] = _add_pair(copy.graph, made, source, thresholds[source])
            node.input[0] = pairs[source]
            node.input[1] = _add_weight(copy.graph, made, weight, numpy_helper.to_array(weights[weight]))
            replaced.add(weight)
        made.append(node)
    used = {name for node in made for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name not in replaced or tensor.name in used]
    nodes_made = [_copied(node) for node in made]
    tensors_kept = [_copied_tensor(tensor) for tensor in kept]
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(nodes_made)
    copy.graph.initializer.extend(tensors_kept)
    return copy


def op_nodes(model: onnx.ModelProto) -> dict[str, str]:
    """Returns the name of the node that runs each convolution or linear layer, by `<layer>.<op>`.

    They are known by their weights, whatever the exporter called the nodes.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        node.input[1].removesuffix(".weight"): node.name
        for node in model.graph.node
        if node.op_type in QUANTISABLE and node.input[1] in weights and node.input[1].endswith(".weight")
    }


def audit(model: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Reads a quantised graph anew, and returns what in it is not as it should be, in words.

    Args:
        model: The graph.
        nodes: Names of the nodes that should be quantised, and no others.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    found, seen = [], set()
    for node in model.graph.node:
        pairs = [maker for name in node.input if (maker := makers.get(name)) and maker.op_type == "DequantizeLinear"]
        if not pairs or node.op_type == "QuantizeLinear":
            continue
        seen.add(node.name)
        if node.name not in nodes:
            found.append(f"{node.name} ({node.op_type}) is quantised, and should not be")
            continue
        found += [f"{node.name}: {problem}" for problem in _problems(node, makers, constants)]
    return found + [f"{name} is not quantised, and should be" for name in nodes if name not in seen]


def _problems(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, npt.NDArray[np.generic]]
) -> list[str]:
    problems = []
    for what, name in zip(("its input", "its weight", "its bias"), node.input, strict=False):
        maker = makers.get(name)
        quantised = maker is not None and maker.op_type == "DequantizeLinear"
        if quantised == (what == "its bias"):
            problems.append(f"{what} is {'' if quantised else 'not '}quantised")
            continue
        if maker is None or not quantised:
            continue
        scale, zero = constants[maker.input[1]], constants[maker.input[2]]
        wanted = (len(constants[maker.input[0]]),) if what == "its weight" else ()
        if scale.shape != wanted:
            problems.append(f"{what} has scales of shape {scale.shape}, expected {wanted}")
        if zero.dtype != np.int8 or zero.any():
            problems.append(f"{what} has a zero point other than an int8 of 0")
    return problems


def _add_pair(graph: onnx.GraphProto, made: list[onnx.NodeProto], source: str, threshold: float) -> str:
    name = f"{source}.{_SUFFIX}"
    scale = np.array(_scale(np.array(threshold)), dtype=np.float32)
    _add_constant(graph, f"{name}.scale", scale)
    _add_constant(graph, f"{name}.zero", np.array(0, dtype=np.int8))
    made.append(helper.make_node("QuantizeLinear", [source, f"{name}.scale", f"{name}.zero"], [name], name=f"{name}.q"))
    made.append(
        helper.make_node(
            "DequantizeLinear", [name, f"{name}.scale", f"{name}.zero"], [f"{name}.float"], name=f"{name}.dq"
        )
    )
    return f"{name}.float"


def _add_weight(
    graph: onnx.GraphProto, made: list[onnx.NodeProto], weight: str, values: npt.NDArray[np.float32]
) -> str:
    name = f"{weight}.{_SUFFIX}"
    scale = _scale(np.abs(values).reshape(len(values), -1).max(axis=1))
    steps = np.rint(values / scale.reshape(-1, *[1] * (values.ndim - 1))).clip(-LEVELS, LEVELS).astype(np.int8)
    _add_constant(graph, name, steps)
    _add_constant(graph, f"{name}.scale", scale)
    _add_constant(graph, f"{name}.zero", np.zeros(len(values), dtype=np.int8))
    made.append(
        helper.make_node(
            "DequantizeLinear", [name, f"{name}.scale", f"{name}.zero"], [f"{name}.float"], name=f"{name}.dq", axis=0
        )
    )
    return f"{name}.float"


def _scale(threshold: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """A tensor that is all zero gets a scale of 1: any other would do."""
    return np.where(threshold > 0, threshold / LEVELS, 1.0).astype(np.float32)


def _add_constant(graph: onnx.GraphProto, name: str, value: npt.NDArray[np.generic]) -> None:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _copied_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    return copy

"""Integer graphs to measure: quantised as `nas2edge export` does it, with ranges that suit random weights."""

from __future__ import annotations

import onnx

from nas2edge.export.qdq import op_nodes, quantise

_THRESHOLD = 4.0  # activations of random weights are about normal; ranges change no latency


def int8_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy in which all convolutions and linear layers take int8 inputs and weights."""
    nodes = set(op_nodes(model).values())
    thresholds = {node.input[0]: _THRESHOLD for node in model.graph.node if node.name in nodes}
    return quantise(model, nodes, thresholds)

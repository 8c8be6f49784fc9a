"""Blocks as they stand inside a network: between two thin convolutions, whose own cost is measured and taken off.

A block that stands alone converts its input and output between the user's layout and that of the runtime's kernels; in
a network only the first and last block do. That conversion can cost more than the block: OpenVINO needs 1.6 ms for the
two maps of 24 x 128 x 128 values around a block of 0.6 ms. So blocks are measured between a 1x1 convolution from one
channel, where all layouts are alike, and one back to one channel. Both together are an item of their own for every
shape that any block begins or ends with; half of it is taken off at each end:

    t(row) = t(convolution, block, convolution) - border(shape before) / 2 - border(shape after) / 2

In a network's sum each inner shape is taken off once in full, so it does not matter how the two convolutions share it.
The stem takes the image and the head gives logits: there a network has its ends too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas2edge.graph import DEFAULT_OPSET, chain_model, random_weights
from nas2edge.plan import LayerSpec

Shape = tuple[int, int]
"""Side of a square map, and its channels."""

ENTER, LEAVE = "border.enter", "border.leave"


def shape_before(layer: LayerSpec) -> Shape | None:
    """Returns the shape that a block begins with; None for a stem."""
    return None if layer.op == "first_conv" else (layer.hw_in, layer.in_chs)


def shape_after(layer: LayerSpec) -> Shape | None:
    """Returns the shape that a block ends with; None for a head."""
    return None if layer.op == "mbpool" else (layer.hw_out, layer.out_chs)


def border_shapes(layers: Iterable[LayerSpec]) -> list[Shape]:
    """Returns all shapes that blocks begin or end with, in order."""
    found = {shape for layer in layers for shape in (shape_before(layer), shape_after(layer)) if shape is not None}
    return sorted(found)


def bordered_model(layers: Sequence[LayerSpec], *, rng: np.random.Generator, batch: int = 1) -> onnx.ModelProto:
    """Returns the graph of consecutive blocks with random weights, between thin convolutions."""
    model = chain_model(layers, random_weights(layers, rng), batch=batch)
    graph = model.graph
    before, after = shape_before(layers[0]), shape_after(layers[-1])
    inner = [_copied(node) for node in graph.node]
    nodes: list[onnx.NodeProto] = []
    if before is not None:
        nodes.append(_thin(graph, ENTER, ("input", "entered"), (1, before[1]), rng))
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
        for node in inner:
            node.input[:] = ["entered" if name == "input" else name for name in node.input]
    nodes += inner
    if after is not None:
        for node in inner:
            node.output[:] = ["leaving" if name == "output" else name for name in node.output]
        nodes.append(_thin(graph, LEAVE, ("leaving", "output"), (after[1], 1), rng))
        graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def border_model(shape: Shape, *, rng: np.random.Generator, batch: int = 1) -> onnx.ModelProto:
    """Returns the graph of the two thin convolutions alone, with a map of the shape between them."""
    hw, chs = shape
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 1, hw, hw]) for name in ("input", "output")]
    graph = helper.make_graph([], "border", ends[:1], ends[1:], [])
    graph.node.append(_thin(graph, ENTER, ("input", "between"), (1, chs), rng))
    graph.node.append(_thin(graph, LEAVE, ("between", "output"), (chs, 1), rng))
    opsets = [helper.make_opsetid("", DEFAULT_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))


def _thin(
    graph: onnx.GraphProto, name: str, ends: tuple[str, str], chs: tuple[int, int], rng: np.random.Generator
) -> onnx.NodeProto:
    weight = rng.standard_normal((chs[1], chs[0], 1, 1)) / np.sqrt(chs[0])
    graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
    return helper.make_node("Conv", [ends[0], f"{name}.weight"], [ends[1]], name=name, kernel_shape=[1, 1])


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy

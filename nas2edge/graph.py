"""ONNX graphs of plans: of a whole sub-network, of one block, or of a few blocks in a row. Free of torch.

The graph is emitted node by node from the plan, so it needs no tracing, is the same to the byte each time, and honours
any opset from 13 (TensorRT 8.2, the last for the first Jetson Nano) to the newest that the onnx package knows:

>>> layers = plan(space, subnet)
>>> model = network_model(layers, fold_batch_norm(layers, state))
>>> onnx.save(model, "model.onnx")  # doctest: +SKIP

*Folded* weights are named `<layer>.<op>.weight` and, for convolutions that batch normalisation follows or that have a
bias of their own, `<layer>.<op>.bias`. In the graph every tensor carries the name of the layer and op that made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas2edge._version import __version__
from nas2edge.errors import CheckpointError, InputError
from nas2edge.plan import LayerSpec, OpSpec

Weights = Mapping[str, npt.NDArray[Any]]
"""Arrays by name; names and shapes follow from the plan."""

BN_EPS = 1e-5
MIN_OPSET = 13
DEFAULT_OPSET = 17  # read by TensorRT from 8.4 on, that is by every JetPack from 5.0
INPUT_NAME, OUTPUT_NAME = "images", "logits"
_NO_METADATA: Mapping[str, str] = MappingProxyType({})


def network_model(
    layers: Sequence[LayerSpec],
    weights: Weights,
    *,
    opset: int = DEFAULT_OPSET,
    batch: int | None = 1,
    metadata: Mapping[str, str] = _NO_METADATA,
) -> onnx.ModelProto:
    """Returns the graph of a whole plan: "images" (N, 3, R, R) to "logits" (N, classes), both float32.

    Args:
        layers: The plan, from stem to head.
        weights: Folded weights; names that the plan does not have are ignored.
        opset: Version of the ONNX operator set.
        batch: N, or None to leave it open as the symbol "batch".
        metadata: Written to the model's metadata_props, sorted by name.

    Raises:
        CheckpointError: A weight is missing or of another shape.
        InputError: The opset is out of range, or a layer does not follow on the one before it.
    """
    return _emit(layers, weights, opset=opset, batch=batch, ends=(INPUT_NAME, OUTPUT_NAME), metadata=metadata)


def chain_model(
    layers: Sequence[LayerSpec], weights: Weights, *, opset: int = DEFAULT_OPSET, batch: int | None = 1
) -> onnx.ModelProto:
    """Returns the graph of consecutive blocks: "input" (N, in_chs, H, H) to "output".

    Raises:
        CheckpointError: A weight is missing or of another shape.
        InputError: The opset is out of range, or a layer does not follow on the one before it.
    """
    return _emit(layers, weights, opset=opset, batch=batch, ends=("input", "output"), metadata=_NO_METADATA)


def layer_model(
    layer: LayerSpec, *, rng: np.random.Generator, opset: int = DEFAULT_OPSET, batch: int | None = 1
) -> onnx.ModelProto:
    """Returns the graph of one block alone, with random weights: what a latency table measures.

    Raises:
        InputError: The opset is out of range.
    """
    return chain_model([layer], random_weights([layer], rng), opset=opset, batch=batch)


def fold_batch_norm(layers: Sequence[LayerSpec], state: Weights) -> dict[str, npt.NDArray[np.float32]]:
    """Folds batch normalisation into the convolution before it, in float64, and returns float32 weights.

    Args:
        layers: The plan.
        state: `<layer>.<op>.weight`, `.bias` where the op has one, and where batch normalisation follows
            `<layer>.<op>.bn.` + weight, bias, running_mean, running_var.

    Raises:
        CheckpointError: An array is missing or of another shape, or a running variance is negative.
    """
    folded: dict[str, npt.NDArray[np.float32]] = {}
    for name, op in _named_ops(layers):
        weight = _get(state, f"{name}.weight", op.weight_shape).astype(np.float64)
        bias = _get(state, f"{name}.bias", (op.out_chs,)).astype(np.float64) if op.bias else np.zeros(op.out_chs)
        if op.bn:
            scale, shift = _scale_and_shift(state, name, op)
            weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
            bias = bias * scale + shift
        folded[f"{name}.weight"] = weight.astype(np.float32)
        if _has_bias(op):
            folded[f"{name}.bias"] = bias.astype(np.float32)
    return folded


def random_weights(layers: Sequence[LayerSpec], rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    """Draws folded weights that keep activations in a normal range through many blocks (no denormals, no overflow)."""
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for name, op in _named_ops(layers):
        fan_in = int(np.prod(op.weight_shape[1:]))
        gain = 2.0 if op.act in ("swish", "relu") else 0.5
        weights[f"{name}.weight"] = (rng.standard_normal(op.weight_shape) * np.sqrt(gain / fan_in)).astype(np.float32)
        if _has_bias(op):
            weights[f"{name}.bias"] = (0.1 * rng.standard_normal(op.out_chs)).astype(np.float32)
    return weights


def newest_opset() -> int:
    """Returns the newest opset that the installed onnx package knows; a runtime may know fewer."""
    return int(onnx.defs.onnx_opset_version())


def check_opset(opset: int) -> None:
    """Checks that graphs of an opset can be emitted.

    Raises:
        InputError: It is older than 13 or newer than the installed onnx package.
    """
    if not MIN_OPSET <= opset <= newest_opset():
        raise InputError(f"opset {opset} is out of range; expected {MIN_OPSET} to {newest_opset()}")


def output_name(layer: LayerSpec) -> str:
    """Returns the name of the tensor that a block hands on, inside a graph of `network_model`."""
    if layer.op == "first_conv":
        return f"{layer.name}.conv.{layer.act}"
    if layer.op == "mbpool":
        return OUTPUT_NAME
    return f"{layer.name}.project" if layer.shortcut == "none" else layer.name


def _emit(
    layers: Sequence[LayerSpec],
    weights: Weights,
    *,
    opset: int,
    batch: int | None,
    ends: tuple[str, str],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    _check_request(layers, opset=opset, batch=batch)
    nodes = _Nodes(weights)
    value = ends[0]
    for layer in layers:
        value = _EMITTERS[layer.op](nodes, layer, value)
    nodes.rename_last(ends[1])
    first, last = layers[0], layers[-1]
    dim = "batch" if batch is None else batch
    out_shape = [dim, last.classes] if last.op == "mbpool" else [dim, last.out_chs, last.hw_out, last.hw_out]
    graph = helper.make_graph(
        nodes.nodes,
        "nas2edge",
        [helper.make_tensor_value_info(ends[0], TensorProto.FLOAT, [dim, first.in_chs, first.hw_in, first.hw_in])],
        [helper.make_tensor_value_info(ends[1], TensorProto.FLOAT, out_shape)],
        nodes.initializers,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="nas2edge",
        producer_version=__version__,
    )
    helper.set_model_props(model, {name: metadata[name] for name in sorted(metadata)})
    return model


class _Nodes:
    """The nodes and initializers of a graph in the making; every method returns the name of what it appended."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def op(self, layer: LayerSpec, op: OpSpec, value: str) -> str:
        """Appends a convolution or linear layer with its activation."""
        name = f"{layer.name}.{op.name}"
        inputs = [value, self._initializer(f"{name}.weight", op.weight_shape)]
        if _has_bias(op):
            inputs.append(self._initializer(f"{name}.bias", (op.out_chs,)))
        if op.kind == "linear":
            return self.activation(op.act, self.add("Gemm", inputs, name, transB=1))
        value = self.add(
            "Conv",
            inputs,
            name,
            kernel_shape=[op.kernel_size] * 2,
            strides=[op.stride] * 2,
            pads=[op.kernel_size // 2] * 4,
            group=op.groups,
        )
        return self.activation(op.act, value)

    def activation(self, act: str, value: str) -> str:
        if act == "":
            return value
        if act == "relu":
            return self.add("Relu", [value], f"{value}.relu")
        if act == "hsigmoid":
            return self.add("HardSigmoid", [value], f"{value}.hsigmoid", alpha=1 / 6, beta=0.5)
        assert act == "swish", act
        # The pair, not the Swish operator of opset 24: all runtimes parse it, and fuse it.
        gate = self.add("Sigmoid", [value], f"{value}.sigmoid")
        return self.add("Mul", [value, gate], f"{value}.swish")

    def rename_last(self, name: str) -> None:
        self.nodes[-1].output[0] = name

    def _initializer(self, name: str, shape: tuple[int, ...]) -> str:
        array = np.ascontiguousarray(_get(self._weights, name, shape), dtype=np.float32)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


def _emit_first_conv(nodes: _Nodes, layer: LayerSpec, value: str) -> str:
    (conv,) = layer.ops
    return nodes.op(layer, conv, value)


def _emit_mbconv(nodes: _Nodes, layer: LayerSpec, value: str) -> str:
    ops = {op.name: op for op in layer.ops}
    main = nodes.op(layer, ops["expand"], value) if layer.expands else value
    main = nodes.op(layer, ops["depthwise"], main)
    if layer.se_chs:
        gate = nodes.add("GlobalAveragePool", [main], f"{layer.name}.se_mean")
        gate = nodes.op(layer, ops["se_expand"], nodes.op(layer, ops["se_reduce"], gate))
        main = nodes.add("Mul", [main, gate], f"{layer.name}.se")
    main = nodes.op(layer, ops["project"], main)
    if layer.shortcut == "none":
        return main
    if "pool" in layer.shortcut:
        pads = [layer.hw_in % 2] * 4
        value = nodes.add(
            "AveragePool",
            [value],
            f"{layer.name}.pool",
            kernel_shape=[2, 2],
            strides=[2, 2],
            pads=pads,
            count_include_pad=1,
        )
    if "conv" in layer.shortcut:
        value = nodes.op(layer, ops["shortcut"], value)
    return nodes.add("Add", [main, value], layer.name)


def _emit_mbpool(nodes: _Nodes, layer: LayerSpec, value: str) -> str:
    expand, mix, classifier = layer.ops
    value = nodes.op(layer, expand, value)
    # GlobalAveragePool rather than ReduceMean: one form for every opset, and ONNX Runtime keeps its blocked layout.
    value = nodes.add("GlobalAveragePool", [value], f"{layer.name}.mean")
    value = nodes.op(layer, mix, value)
    return nodes.op(layer, classifier, nodes.add("Flatten", [value], f"{layer.name}.flatten", axis=1))


_EMITTERS = {"first_conv": _emit_first_conv, "mbconv": _emit_mbconv, "mbpool": _emit_mbpool}


def _check_request(layers: Sequence[LayerSpec], *, opset: int, batch: int | None) -> None:
    check_opset(opset)
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch} is out of range; expected 1 or more, or None for any")
    if not layers:
        raise InputError("a graph needs at least one layer; the plan is empty")
    for before, after in zip(layers, layers[1:], strict=False):
        leaves, enters = (before.out_chs, before.hw_out), (after.in_chs, after.hw_in)
        if before.op == "mbpool" or leaves != enters:
            raise InputError(
                f"{after.name} does not follow on {before.name}: it takes (channels, side) {enters}, gets {leaves}"
            )


def _named_ops(layers: Sequence[LayerSpec]) -> list[tuple[str, OpSpec]]:
    return [(f"{layer.name}.{op.name}", op) for layer in layers for op in layer.ops]


def _has_bias(op: OpSpec) -> bool:
    return op.bias or op.bn


def _scale_and_shift(state: Weights, name: str, op: OpSpec) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    gamma, beta, mean, var = (
        _get(state, f"{name}.bn.{part}", (op.out_chs,)).astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    if (var < 0).any():
        raise CheckpointError(f"{name}.bn.running_var has negative values; the batch-norm statistics are corrupt")
    scale = gamma / np.sqrt(var + BN_EPS)
    return scale, beta - mean * scale


def _get(weights: Weights, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if name not in weights:
        raise CheckpointError(f"weights lack {name!r}, of shape {shape}; they do not belong to this sub-network")
    array = np.asarray(weights[name])
    if array.shape != shape:
        raise CheckpointError(f"{name!r} has shape {array.shape}; the plan needs {shape}")
    return array

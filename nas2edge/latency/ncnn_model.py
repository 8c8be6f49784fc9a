"""Models of plans for ncnn, written directly: what pnnx makes of the ONNX graph, layer for layer, in a millisecond.

pnnx takes half a second a model, which is many times what measuring a block takes. A test compares both.

>>> param, weights = ncnn_model(layers, random_weights(layers, rng))
>>> Path("net.param").write_text(param); Path("net.bin").write_bytes(weights)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nas2edge.graph import Weights
from nas2edge.latency.borders import ENTER, LEAVE, Shape, shape_after, shape_before
from nas2edge.plan import LayerSpec, OpSpec

_MAGIC = 7767517
_FLOAT32 = np.zeros(1, dtype="<u4").tobytes()  # the tag of weights that are stored as they are
_ADD, _MULTIPLY = 0, 2


def ncnn_model(layers: Sequence[LayerSpec], weights: Weights, *, bordered: bool = False) -> tuple[str, bytes]:
    """Returns the .param text and the .bin bytes of consecutive blocks, from "in0" to "out0".

    Args:
        layers: The blocks.
        weights: Folded weights, as `nas2edge.graph` names them.
        bordered: Whether thin convolutions enclose the blocks (`nas2edge.latency.borders`); their weights are ones.
    """
    net = _Net()
    before, after = (shape_before(layers[0]), shape_after(layers[-1])) if bordered else (None, None)
    value = "in0" if before is None else net.thin(ENTER, "in0", (1, before[1]))
    for layer in layers:
        value = _block(net, layer, weights, value)
    if after is not None:
        net.thin(LEAVE, value, (after[1], 1))
    return net.text(), net.weights()


def ncnn_border(shape: Shape) -> tuple[str, bytes]:
    """Returns the model of the two thin convolutions alone."""
    net = _Net()
    net.thin(LEAVE, net.thin(ENTER, "in0", (1, shape[1])), (shape[1], 1))
    return net.text(), net.weights()


class _Net:
    """Layers in the making; a value that several layers read gets a Split, as ncnn demands."""

    def __init__(self) -> None:
        self._layers: list[tuple[str, list[str], str, str]] = []
        self._arrays: list[bytes] = []

    def add(self, kind: str, inputs: Sequence[str], name: str, **values: Any) -> str:
        parameters = " ".join(f"{key[1:]}={value}" for key, value in values.items())
        self._layers.append((kind, list(inputs), name, parameters))
        return name

    def convolution(self, op: OpSpec, name: str, value: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Appends a convolution with its activation."""
        weight, bias = arrays["weight"], arrays.get("bias")
        relu = {"_9": 1} if op.act == "relu" else {}
        if op.hw_in == 1 and op.groups == 1:
            value = self.add("InnerProduct", [value], name, _0=op.out_chs, _1=int(bias is not None), _2=weight.size,
                             **relu)  # fmt: skip
        else:
            k, s, pad = op.kernel_size, op.stride, op.kernel_size // 2
            groups = {"_7": op.groups} if op.groups > 1 else {}
            kind = "ConvolutionDepthWise" if op.groups > 1 else "Convolution"
            value = self.add(kind, [value], name, _0=op.out_chs, _1=k, _11=k, _12=1, _13=s, _14=pad, _2=1, _3=s, _4=pad,
                             _5=int(bias is not None), _6=weight.size, **groups, **relu)  # fmt: skip
        self._arrays += [_FLOAT32, weight.astype("<f4").tobytes()]
        if bias is not None:
            self._arrays.append(bias.astype("<f4").tobytes())
        return self.activation(op.act, value)

    def activation(self, act: str, value: str) -> str:
        if act == "swish":
            return self.add("Swish", [value], f"{value}.swish")
        if act == "hsigmoid":
            return self.add("HardSigmoid", [value], f"{value}.hsigmoid", _0=1 / 6, _1=0.5)
        assert act in ("", "relu"), act
        return value

    def thin(self, name: str, value: str, chs: tuple[int, int]) -> str:
        op = OpSpec(name=name, in_chs=chs[0], out_chs=chs[1], hw_in=2, hw_out=2)
        return self.convolution(op, name, value, {"weight": np.full(op.weight_shape, 1 / chs[0])})

    def text(self) -> str:
        """The .param file."""
        last = self._layers[-1][2]
        readers: dict[str, int] = {}
        for _, inputs, _, _ in self._layers:
            for value in inputs:
                readers[value] = readers.get(value, 0) + 1
        lines = ["Input in0 0 1 in0"]
        blobs = 1
        taken: dict[str, int] = {}

        def split(value: str) -> None:
            nonlocal blobs
            n = readers.get(value, 0)
            if n > 1:
                outputs = " ".join(f"{value}_{i}" for i in range(n))
                lines.append(f"Split split.{value} 1 {n} {value} {outputs}")
                blobs += n

        def read(value: str) -> str:
            if readers[value] == 1:
                return value
            taken[value] = taken.get(value, -1) + 1
            return f"{value}_{taken[value]}"

        split("in0")
        for kind, inputs, name, parameters in self._layers:
            output = "out0" if name == last else name
            lines.append(" ".join([kind, name, str(len(inputs)), "1", *map(read, inputs), output, parameters]).strip())
            blobs += 1
            split(name)
        return f"{_MAGIC}\n{len(lines)} {blobs}\n" + "\n".join(lines) + "\n"

    def weights(self) -> bytes:
        """The .bin file."""
        return b"".join(self._arrays)


def _block(net: _Net, layer: LayerSpec, weights: Weights, value: str) -> str:
    ops = {op.name: op for op in layer.ops}

    def run(name: str, value: str) -> str:
        full = f"{layer.name}.{name}"
        arrays = {part: weights[f"{full}.{part}"] for part in ("weight", "bias") if f"{full}.{part}" in weights}
        return net.convolution(ops[name], full, value, arrays)

    if layer.op == "first_conv":
        return run("conv", value)
    if layer.op == "mbpool":
        pooled = net.add("Pooling", [run("expand", value)], f"{layer.name}.mean", _0=1, _4=1)
        return run("classifier", run("mix", pooled))
    main = run("expand", value) if layer.expands else value
    main = run("depthwise", main)
    if layer.se_chs:
        gate = net.add("Pooling", [main], f"{layer.name}.se_mean", _0=1, _4=1)
        gate = run("se_expand", run("se_reduce", gate))
        main = net.add("BinaryOp", [main, gate], f"{layer.name}.se", _0=_MULTIPLY)
    main = run("project", main)
    if layer.shortcut == "none":
        return main
    if "pool" in layer.shortcut:
        pad = layer.hw_in % 2
        value = net.add("Pooling", [value], f"{layer.name}.pool", _0=1, _1=2, _11=2, _12=2, _13=pad, _2=2, _3=pad,
                        _5=1, _6=1)  # fmt: skip
    if "conv" in layer.shortcut:
        value = run("shortcut", value)
    return net.add("BinaryOp", [main, value], layer.name, _0=_ADD)

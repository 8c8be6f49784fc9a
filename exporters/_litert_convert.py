"""Converts a file from ONNX to TFLite: python -m nas2edge.exporters._litert_convert IN.onnx OUT.tflite

A process of its own, since the converter brings JAX with it and writes its progress past every redirection.
LiteRT's maintained converter reads PyTorch, so the graph is first made a PyTorch module, operator by operator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

Operator = Callable[[list[Tensor], Mapping[str, Any]], Tensor]


def _conv(values: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    pads = attributes.get("pads", [0] * 4)
    assert pads[:2] == pads[2:], pads
    return F.conv2d(
        values[0],
        values[1],
        values[2] if len(values) > 2 else None,
        stride=attributes.get("strides", [1, 1]),
        padding=pads[:2],
        dilation=attributes.get("dilations", [1, 1]),
        groups=attributes.get("group", 1),
    )


def _average_pool(values: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    pads = attributes.get("pads", [0] * 4)
    assert pads[:2] == pads[2:], pads
    counted = bool(attributes.get("count_include_pad", 0))
    kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
    return F.avg_pool2d(values[0], kernel, strides, pads[:2], count_include_pad=counted)


def _gemm(values: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    assert attributes.get("transB", 0) == 1, attributes
    return F.linear(values[0], values[1], values[2] if len(values) > 2 else None)


def _hard_sigmoid(values: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    alpha, beta = float(attributes.get("alpha", 0.2)), float(attributes.get("beta", 0.5))
    if np.isclose(alpha, 1 / 6) and beta == 0.5:
        return F.hardsigmoid(values[0])
    return (values[0] * alpha + beta).clamp(0.0, 1.0)


OPERATORS: dict[str, Operator] = {
    "Add": lambda values, attributes: values[0] + values[1],
    "AveragePool": _average_pool,
    "Conv": _conv,
    "Flatten": lambda values, attributes: values[0].flatten(attributes.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda values, attributes: values[0].mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "Mul": lambda values, attributes: values[0] * values[1],
    "Relu": lambda values, attributes: F.relu(values[0]),
    "Sigmoid": lambda values, attributes: values[0].sigmoid(),
}
"""All operators that the exported networks have."""


class OnnxModule(nn.Module):
    """An ONNX graph of known operators, with one input and one output, as a PyTorch module."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._graph = model.graph
        self._buffer_of: dict[str, str] = {}
        for i, weight in enumerate(model.graph.initializer):
            self._buffer_of[weight.name] = f"weight{i}"
            self.register_buffer(f"weight{i}", torch.from_numpy(numpy_helper.to_array(weight).copy()))

    def forward(self, images: Tensor) -> Tensor:
        values: dict[str, Tensor] = {name: getattr(self, buffer) for name, buffer in self._buffer_of.items()}
        values[self._graph.input[0].name] = images
        for node in self._graph.node:
            attributes = {found.name: helper.get_attribute_value(found) for found in node.attribute}
            values[node.output[0]] = OPERATORS[node.op_type]([values[name] for name in node.input], attributes)
        return values[self._graph.output[0].name]


def main(source: str, target: str) -> None:
    import litert_torch

    model = onnx.load(source)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    torch.set_num_threads(1)
    converted = litert_torch.convert(OnnxModule(model).eval(), sample_kwargs={"images": torch.zeros(shape)})
    converted.export(target)


if __name__ == "__main__":
    main(*sys.argv[1:])

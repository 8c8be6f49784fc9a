"""Where two versions of a network part: their blocks' outputs side by side, asked for once a comparison has failed.

>>> blame(torch_blocks(net, images), onnx_blocks(model, net.layers, images))
'the first block that differs is stages.2.blocks.0 (its output by 31 %)'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from nas2edge.export.parity import sqnr_db
from nas2edge.graph import output_name
from nas2edge.plan import LayerSpec
from nas2edge.supernet.blocks import resize, run_block
from nas2edge.supernet.static import StaticNet

TOLERANCE = 1e-3
"""Relative difference (in the Euclidean norm) from which on a block counts as different."""

Array = npt.NDArray[np.float32]


def blame(reference: Mapping[str, Array], other: Mapping[str, Array]) -> str:
    """Names the first block whose outputs differ, in the order of `reference`; blocks that `other` lacks are passed.

    Args:
        reference: Outputs by block.
        other: Outputs by block.
    """
    for name, expected in reference.items():
        if name not in other:
            continue
        norm = float(np.linalg.norm(expected))
        difference = float(np.linalg.norm(other[name] - expected)) / norm if norm else float("inf")
        if not difference <= TOLERANCE and not np.array_equal(other[name], expected):
            return f"the first block that differs is {name} (its output by {difference:.2g} of its norm)"
    return "no single block differs by much; the difference adds up over the network"


def worst_blocks(reference: Mapping[str, Array], other: Mapping[str, Array], *, n: int = 5) -> dict[str, float]:
    """Returns the blocks whose outputs differ most, by their signal-to-noise ratio in decibels, the worst first."""
    found = {}
    for name, expected in reference.items():
        if name in other:
            norm = float(np.linalg.norm(expected.astype(np.float64)))
            difference = float(np.linalg.norm(other[name].astype(np.float64) - expected))
            found[name] = sqnr_db(difference / norm if norm else float("inf"))
    return dict(sorted(found.items(), key=lambda item: item[1])[:n])


def torch_blocks(net: StaticNet, images: Array) -> dict[str, Array]:
    """Returns the output of every block of a torch network."""
    outputs: dict[str, Array] = {}
    with torch.no_grad():
        x = resize(torch.from_numpy(images), net.resolution)
        for layer in net.layers:
            ops = cast(nn.ModuleDict, net.get_submodule(layer.name))

            def apply(name: str, y: Tensor, ops: nn.ModuleDict = ops) -> Tensor:
                return cast(Tensor, ops[name](y))

            x = run_block(layer, apply, x)
            outputs[layer.name] = x.numpy()
    return outputs


def onnx_blocks(model: onnx.ModelProto, layers: Sequence[LayerSpec], images: Array) -> dict[str, Array]:
    """Returns the output of every block that an ONNX network still names, with any batch size."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    made = {name for node in opened.graph.node for name in node.output}
    names = {layer.name: output_name(layer) for layer in layers if output_name(layer) in made}
    size = opened.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names.values())
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    runs = [session.run(None, {opened.graph.input[0].name: np.repeat(image[None], size, axis=0)}) for image in images]
    return {name: np.stack([run[i][0] for run in runs]) for i, name in enumerate(names)}

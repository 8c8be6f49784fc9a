"""How an image becomes the input of a network: as a rule to follow, as part of the ONNX graph, and checked.

The rule is what a bundle says in words and numbers. `prepare` follows it with nothing but NumPy, apart from the code
that prepared the images of training and search, so that a rule that is wrong is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas2edge.graph import INPUT_NAME
from nas2edge.supernet.weights_file import Preprocess

PIXELS_NAME = "pixels"
PREFIX = "preprocess."
"""Of the names of all nodes that prepare pixels."""
CUBIC = -0.75

Array = npt.NDArray[Any]


def rule_of(preprocess: Preprocess, resolution: int, *, pixels: bool) -> dict[str, Any]:
    """Returns the rule: what the input is, and every step from a cropped image to it, in order.

    Args:
        preprocess: As the supernet was trained.
        resolution: Side of the network's input.
        pixels: Whether the ONNX file takes pixels and does the rest itself.
    """
    side = preprocess.image_size
    kernel = f"bicubic (a = {CUBIC}, align_corners off, no antialias) from {side} to {resolution}"
    when = "before anything else, rounded to 0 to 255" if pixels else "after normalising"
    return {
        "layout": "NHWC" if pixels else "NCHW",
        "dtype": "uint8" if pixels else "float32",
        "colour": "RGB",
        "scale": "inside the model" if pixels else "divide by 255, subtract mean, divide by std",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "crop": side,
        "resize": "none" if side == resolution else f"{kernel}, {when}",
        "resolution": resolution,
    }


def prepare(pixels: npt.NDArray[np.uint8], rule: Mapping[str, Any]) -> Array:
    """Follows a rule.

    Args:
        pixels: Cropped RGB images, uint8 (N, 3, S, S).
        rule: As `rule_of` writes it, or as it was read from a file.

    Returns:
        What the model takes.
    """
    mean, std = (np.array(rule[name], dtype=np.float64).reshape(3, 1, 1) for name in ("mean", "std"))
    values = pixels.astype(np.float64)
    if rule["colour"] == "BGR":
        values = values[:, ::-1]
    if rule["dtype"] == "uint8":
        values = np.rint(_resized(values, rule["resolution"])).clip(0, 255)
    else:
        values = _resized((values / 255.0 - mean) / std, rule["resolution"])
    values = values.transpose(0, 2, 3, 1) if rule["layout"] == "NHWC" else values
    return np.ascontiguousarray(values, dtype=rule["dtype"])


def bake(model: onnx.ModelProto, preprocess: Preprocess) -> onnx.ModelProto:
    """Returns a copy that takes "pixels", uint8 (N, R, R, 3), and scales, normalises and transposes them itself."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (source,) = copy.graph.input
    batch, _, side, _ = source.type.tensor_type.shape.dim
    dims = [batch.dim_param or batch.dim_value, side.dim_value, side.dim_value, 3]
    mean, std = (np.array(values, dtype=np.float64).reshape(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    constants = {"mean": 255.0 * mean, "scale": 1.0 / (255.0 * std)}
    names = [f"{PREFIX}{name}" for name in ("float", "planes", "centred")]
    nodes = [
        helper.make_node("Cast", [PIXELS_NAME], [names[0]], name=names[0], to=TensorProto.FLOAT),
        helper.make_node("Transpose", [names[0]], [names[1]], name=names[1], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", [names[1], f"{PREFIX}mean"], [names[2]], name=names[2]),
        helper.make_node("Mul", [names[2], f"{PREFIX}scale"], [INPUT_NAME], name=f"{PREFIX}normalised"),
        *copy.graph.node,
    ]
    copied = [_copy(node) for node in nodes]
    del copy.graph.input[:], copy.graph.node[:]
    copy.graph.input.append(helper.make_tensor_value_info(PIXELS_NAME, TensorProto.UINT8, dims))
    copy.graph.node.extend(copied)
    copy.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), f"{PREFIX}{name}") for name, value in constants.items()
    )
    return copy


def differs(expected: Array, got: Array) -> str:
    """Returns how an input differs from what it should be, in words; empty for rounding.

    Floats may differ by a ten-thousandth of the greatest; of pixels one in a thousand may be rounded the other way.
    """
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return f"it is {got.dtype} of shape {got.shape}, expected {expected.dtype} of shape {expected.shape}"
    difference = np.abs(expected.astype(np.float64) - got.astype(np.float64))
    if expected.dtype == np.uint8:
        off = float((difference > 0).mean())
        return "" if difference.max() <= 1 and off <= 1e-3 else f"{off:.2%} of the pixels differ"
    greatest = float(np.abs(expected).max())
    return (
        ""
        if difference.max() <= 1e-4 * greatest
        else f"values differ by up to {difference.max():.3g} of {greatest:.3g}"
    )


def _resized(images: npt.NDArray[np.float64], resolution: int) -> npt.NDArray[np.float64]:
    if images.shape[-1] == resolution:
        return images
    weights = _cubic_weights(images.shape[-1], resolution)
    return weights @ images @ weights.T


def _cubic_weights(side: int, resolution: int) -> npt.NDArray[np.float64]:
    """Returns (R, S): every output pixel as a sum of four input pixels, those at the border repeated (Keys, 1981)."""
    weights = np.zeros((resolution, side))
    for i in range(resolution):
        position = (i + 0.5) * side / resolution - 0.5
        first = int(np.floor(position)) - 1
        for j in range(first, first + 4):
            weights[i, min(max(j, 0), side - 1)] += _cubic(abs(position - j))
    return weights


def _cubic(x: float) -> float:
    a = CUBIC
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy

"""How data flows through one block, written once for elastic and static networks alike.

Shapes are (N, C, H, W): batch, channels, height, width. Facts: AttentiveNAS's released configuration (section numbers
of `plan.py` name the rules); squeeze-and-excitation stands on the middle channels with a hard sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nas2edge.plan import LayerSpec
from nas2edge.supernet.fused import scale_by_gate

Apply = Callable[[str, Tensor], Tensor]
"""Applies one of a block's convolutions, by its name, with its normalisation and activation."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "swish": F.silu,
    "relu": F.relu,
    "hsigmoid": F.hardsigmoid,
}


def activate(act: str, x: Tensor) -> Tensor:
    """Applies an activation by the name that `OpSpec.act` has for it."""
    return _ACTIVATIONS[act](x)


def run_block(layer: LayerSpec, apply: Apply, x: Tensor, *, drop_connect: float = 0.0) -> Tensor:
    """Runs one block.

    Args:
        layer: The block.
        apply: Applies its convolutions.
        x: Input of shape (N, in_chs, hw_in, hw_in).
        drop_connect: Share of images whose main branch is dropped, where the shortcut is the identity; for training.

    Returns:
        (N, out_chs, hw_out, hw_out), or (N, classes) for the head.
    """
    if layer.op == "first_conv":
        return apply("conv", x)
    if layer.op == "mbpool":
        pooled = apply("expand", x).mean((2, 3), keepdim=True)
        return apply("classifier", apply("mix", pooled).flatten(1))
    return _mbconv(layer, apply, x, drop_connect)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resizes square images (N, C, H, H) bicubically to the resolution, unless they have it."""
    if images.shape[-1] == resolution:
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bicubic", align_corners=False)


def _mbconv(layer: LayerSpec, apply: Apply, x: Tensor, drop_connect: float) -> Tensor:
    y = apply("expand", x) if layer.expands else x
    y = apply("depthwise", y)
    if layer.se_chs:
        y = scale_by_gate(y, lambda means: apply("se_expand", apply("se_reduce", means)))
    y = apply("project", y)
    if drop_connect and layer.shortcut == "identity":
        keep = torch.rand(len(y), 1, 1, 1, dtype=y.dtype, device=y.device) >= drop_connect
        y = y * keep / (1.0 - drop_connect)
    return y + _shortcut(layer, apply, x)


def _shortcut(layer: LayerSpec, apply: Apply, x: Tensor) -> Tensor:
    if "pool" in layer.shortcut:
        x = F.avg_pool2d(x, kernel_size=2, stride=2, padding=layer.hw_in % 2)
    return apply("shortcut", x) if "conv" in layer.shortcut else x

"""Parts of parameters: a sub-network uses the first channels, and its gradients are added where they belong.

Left to itself, PyTorch makes a gradient as large as the whole parameter for every use of a part of it, and adds
these up. Here gradients go straight into the parameter's `.grad`: use `torch.autograd.backward`, since
`torch.autograd.grad` finds none. Compiled networks (`Supernet.compile_network`) have PyTorch's own gradients.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH = 16  # images from which on PyTorch hands convolutions of one pixel to oneDNN on one thread
_SMALL_ROWS = 1024  # of a matrix product, up to which its weights outweigh what it is applied to


def part_of(parameter: Tensor, *index: slice) -> Tensor:
    """Returns a view of a parameter whose gradient is added to the parameter's own in place."""
    if torch.compiler.is_compiling():
        return parameter[index]
    return cast(Tensor, _Part.apply(parameter, index))


def is_small(x: Tensor) -> bool:
    """Returns whether (N, C, H, W) in channels-last memory, or (N, C), is small enough for `product_with_part`."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return False
    small = x.device.type == "cpu" and x.numel() <= _SMALL_ROWS * x.shape[1]
    return small and (x.ndim == 2 or x.is_contiguous(memory_format=torch.channels_last))


def product_with_part(x: Tensor, weight: nn.Parameter, out_chs: int, bias: Tensor | None) -> Tensor:
    """Multiplies rows with the part of a weight that they need; the weight's gradient is a product added in place.

    Args:
        x: Shape (M, C).
        weight: Shape (O, I) or (O, I, 1, 1), with I >= C.
        out_chs: How many of its O rows to use.
        bias: Shape (out_chs,), or none.

    Returns:
        Shape (M, out_chs).
    """
    y = cast(Tensor, _Product.apply(x, weight, out_chs))
    return y if bias is None else y + bias


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolves with a kernel of one pixel and stride 1.

    Below 16 images PyTorch multiplies matrices image by image on one thread, rather than let oneDNN do it. In
    channels-last memory the same convolution is one of 16 images of another height.

    Args:
        x: Shape (N, C, H, W).
        weight: Shape (C', C, 1, 1).
        bias: Shape (C',).
    """
    n, chs, height, width = x.shape
    rows = n * height
    if n >= _BATCH or rows % _BATCH or not _is_channels_last(x):
        return F.conv2d(x, weight, bias)
    images = x.permute(0, 2, 3, 1).reshape(_BATCH, rows // _BATCH, width, chs).permute(0, 3, 1, 2)
    y = F.conv2d(images, weight, bias).permute(0, 2, 3, 1)
    return y.reshape(n, height, width, len(weight)).permute(0, 3, 1, 2)


def gradient_of(parameter: Tensor) -> Tensor:
    """Returns a parameter's gradient, of zeros if it has none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _is_channels_last(x: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


class _Part(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, index: tuple[slice, ...]) -> Tensor:
        ctx.parameter, ctx.index = parameter, index
        return parameter[index]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        gradient_of(ctx.parameter)[ctx.index] += grad
        return None, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: nn.Parameter, out_chs: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.out_chs = weight, out_chs
        return x @ _matrix(weight.detach(), x.shape[1], out_chs).t()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        _matrix(gradient_of(ctx.weight), x.shape[1], ctx.out_chs).addmm_(grad.t(), x)
        dx = grad @ _matrix(ctx.weight.detach(), x.shape[1], ctx.out_chs) if ctx.needs_input_grad[0] else None
        return dx, None, None


def _matrix(weight: Tensor, in_chs: int, out_chs: int) -> Tensor:
    return (weight if weight.ndim == 2 else weight[:, :, 0, 0])[:out_chs, :in_chs]

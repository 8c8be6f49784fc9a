"""Training on a CPU, faster: normalisation with swish, squeeze-and-excitation, and depthwise convolutions.

PyTorch runs normalisation and activation one after the other, each from memory and back; and oneDNN has no fast kernel
for the weight gradient of a depthwise convolution of five columns (5 to 100 times slower than its other two passes).
Squeeze-and-excitation reads its input for two gradients, which are then divided and added in further passes. All are
compiled by Numba where it is installed (`kernels.py`); elsewhere, on other devices and for other types,
PyTorch's own functions do the same. Results agree to float32 rounding: sums are only taken in another order.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nas2edge.supernet.parts import gradient_of, part_of

Array = npt.NDArray[Any]

_LEAST_KERNEL = 5  # oneDNN is fast for three columns
_LEAST_PART = 1 << 16  # values a thread is worth waking for
_LEAST_ROW, _LANES, _MOST_FOLDED = 96, 16, 8  # below that, loops over channels end before they are fast


@lru_cache(maxsize=1)
def compiles() -> bool:
    """Returns whether Numba is there to compile the kernels."""
    return importlib.util.find_spec("numba") is not None


def norm_silu(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Normalises by the batch's statistics, then applies swish.

    Args:
        x: Shape (N, C, H, W).
        weight: A parameter of shape (C,) or longer, of which the first C count. Its gradient is added to its own in
            place, as `parts.py` has it.
        bias: The same.
        eps: Added to the variance.
    """
    if _suits(x):
        return cast(Tensor, _NormSilu.apply(x, weight, bias, eps))
    first = slice(x.shape[1])
    return F.silu(F.batch_norm(x, None, None, part_of(weight, first), part_of(bias, first), training=True, eps=eps))


def depthwise_conv2d(x: Tensor, weight: Tensor, *, stride: int) -> Tensor:
    """Convolves every channel with its own kernel, padded by half a kernel.

    Args:
        x: Shape (N, C, H, W).
        weight: Shape (C, 1, k, k), k odd.
        stride: 1 or 2.
    """
    k = weight.shape[-1]
    if k >= _LEAST_KERNEL and _suits(x) and torch.is_grad_enabled():
        return cast(Tensor, _Depthwise.apply(x, weight, stride))
    return F.conv2d(x, weight, None, stride, k // 2, groups=x.shape[1])


def scale_by_gate(x: Tensor, gate_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiplies every channel with a gate that is computed from the channels' means: squeeze-and-excitation.

    Args:
        x: Shape (N, C, H, W).
        gate_of: Maps means (N, C, 1, 1) to gates (N, C, 1, 1).
    """
    if _suits(x) and torch.is_grad_enabled():
        return cast(Tensor, _ScaleByGate.apply(x, gate_of))
    return x * gate_of(x.mean((2, 3), keepdim=True))


def _suits(x: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and compiles() and x.numel() > x.shape[1] and x.is_contiguous(memory_format=torch.channels_last)


class _NormSilu(torch.autograd.Function):
    """Keeps the input and the statistics only; the normalised values are computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        from nas2edge.supernet import kernels

        y, out = _folded(x), torch.empty_like(x)
        rows = _folded(out)
        gamma, beta = (parameter.detach().numpy()[: x.shape[1]] for parameter in (weight, bias))
        statistics, scaling = np.empty((2, len(gamma))), np.empty((2, y.shape[1]), np.float32)
        parts = list(_parts(len(y), y.size))
        if len(parts) == 1:
            kernels.norm_silu(y, gamma, beta, eps, statistics, scaling, rows)
        else:
            shift = kernels.first_position(y, len(gamma))
            sums = _summed(lambda part, *to: kernels.add_sums(y[part], shift, *to), parts, y)
            kernels.finish_statistics(sums, shift, y.size // len(gamma), gamma, beta, eps, statistics, scaling)
            _run([partial(kernels.scale_silu, y[part], *scaling, rows[part]) for part in parts])
        ctx.save_for_backward(x)
        ctx.numbers, ctx.parameters = (statistics, scaling), (weight, bias)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        from nas2edge.supernet import kernels

        (x,) = ctx.saved_tensors
        statistics, scaling = ctx.numbers
        out = torch.empty_like(x)
        y, g, d = _folded(x), _folded(grad.contiguous(memory_format=torch.channels_last)), _folded(out)
        found = np.empty((2, statistics.shape[1]), np.float32)
        d_gamma, d_beta = found
        parts = list(_parts(len(y), y.size))
        if len(parts) == 1:
            kernels.norm_silu_gradient(g, y, statistics, scaling, d, d_gamma, d_beta)
        else:
            centre, line = kernels.centre_of(statistics, y.shape[1]), np.empty((2, y.shape[1]), np.float32)

            def add(part: slice, sums: Array, products: Array) -> None:
                kernels.silu_gradient(g[part], y[part], *scaling, centre, d[part], sums, products)

            sums = _summed(add, parts, y)
            kernels.finish_gradient(sums, y.size // statistics.shape[1], statistics, line, d_gamma, d_beta)
            _run([partial(kernels.norm_gradient, d[part], y[part], scaling[0], *line) for part in parts])
        for parameter, gradient in zip(ctx.parameters, found, strict=True):
            if parameter.requires_grad:
                gradient_of(parameter).numpy()[: len(gradient)] += gradient
        return out, None, None, None


class _ScaleByGate(torch.autograd.Function):
    """The gate has a graph of its own, so that the gradients of both ways to x are added in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_of: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            ctx.means = x.detach().mean((2, 3), keepdim=True).requires_grad_()
            ctx.gate = gate_of(ctx.means)
        ctx.save_for_backward(x)
        return x * cast(Tensor, ctx.gate).detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        from nas2edge.supernet import kernels

        (x,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        n, chs, height, width = x.shape
        g, y = (_images(value).reshape(n, height * width, chs) for value in (grad, x))
        sums = np.zeros((n, chs))
        parts = list(_parts(n, y.size))
        _run([partial(kernels.add_products, g[part], y[part], sums[part]) for part in parts])
        torch.autograd.backward(ctx.gate, torch.from_numpy(sums).float().view(n, chs, 1, 1))
        return torch.addcmul(ctx.means.grad / (height * width), grad, ctx.gate.detach()), None


class _Depthwise(torch.autograd.Function):
    """The convolution with a weight gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        dx = _input_gradient(grad, x, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        dw = _weight_gradient(grad, x, weight.shape[-1], ctx.stride) if ctx.needs_input_grad[1] else None
        return dx, dw, None


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    half, chs = weight.shape[-1] // 2, x.shape[1]
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [half] * 2, [1, 1], False, [0, 0], chs, [True, False, False]
    )
    return cast(Tensor, found[0])


def _weight_gradient(grad: Tensor, x: Tensor, k: int, stride: int) -> Tensor:
    from nas2edge.supernet import kernels

    g, source = _images(grad), _images(x)
    parts = list(_parts(len(g), source.size))
    sums = np.zeros((len(parts), k, k, x.shape[1]), np.float32)

    def add(part: slice, out: Array) -> None:
        kernels.add_depthwise_weight_gradient(g[part], source[part], stride, out)

    _run([partial(add, part, out) for part, out in zip(parts, sums, strict=True)])
    return torch.from_numpy(sums.sum(axis=0)).permute(2, 0, 1).unsqueeze(1)


def _images(x: Tensor) -> Array:
    """Returns (N, C, H, W) in channels-last memory as an array (N, H, W, C) of the same memory."""
    return x.detach().permute(0, 2, 3, 1).numpy()


def _folded(x: Tensor) -> Array:
    """Returns the values as rows of one or more positions with all their channels, as wide as vectors like them."""
    n, chs, height, width = x.shape
    fold = 1
    while (chs * fold < _LEAST_ROW or chs * fold % _LANES) and fold < _MOST_FOLDED:
        fold *= 2
    while n * height * width % fold:
        fold //= 2
    return _images(x).reshape(-1, chs * fold)


def _summed(add: Callable[[slice, Array, Array], None], parts: Sequence[slice], y: Array) -> Array:
    """Runs a kernel that adds to two sums of columns, and returns these over all rows: shape (2, W)."""
    sums = np.zeros((len(parts), 2, y.shape[1]))
    _run([partial(add, part, *to) for part, to in zip(parts, sums, strict=True)])
    total: Array = sums.sum(axis=0)
    return total


def _parts(n: int, values: int) -> Iterator[slice]:
    """Cuts n rows into as many parts as PyTorch has threads, unless there is too little to do."""
    count = max(1, min(torch.get_num_threads(), n, values // _LEAST_PART))
    edges = [n * i // count for i in range(count + 1)]
    yield from map(slice, edges[:-1], edges[1:])


def _run(tasks: Sequence[Callable[[], None]]) -> None:
    others = [_pool().submit(task) for task in tasks[1:]]
    tasks[0]()
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="nas2edge-kernels")

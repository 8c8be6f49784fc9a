"""CPU kernels that PyTorch has no fast ones for, compiled by Numba where that is installed (extra `train`).

All arrays are float32 and channels-last: (N, H, W, C), or (M, C) with M = N*H*W. The innermost loops run over channels,
so that they become vector instructions. Sums over many rows are taken in float32 over a block of rows and in float64
over blocks, which keeps them as exact as PyTorch's. Kernels release the GIL, so that threads can share the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_f32 = np.float32
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_ROWS = 64  # of a block that is summed in float32
_SHIFT = 1024  # makes a number positive before it is cut to an integer

# exp(x) = 2^n exp(r), |r| <= ln(2) / 2, by a polynomial of Cephes (Moshier 1989), to about one unit in the last place.
_LOG2_E, _LN2_HIGH, _LN2_LOW = _f32(1.44269504088896341), _f32(0.693359375), _f32(-2.12194440e-4)
_P0, _P1, _P2 = _f32(1.9875691500e-4), _f32(1.3981999507e-3), _f32(8.3334519073e-3)
_P3, _P4, _P5 = _f32(4.1665795894e-2), _f32(1.6666665459e-1), _f32(5.0000001201e-1)
_LEAST, _MOST = _f32(-87.0), _f32(88.0)  # beyond these exp leaves the normal float32 numbers
_ONE = _f32(1.0)


def _compiled(**options: Any) -> Callable[[Any], Any]:
    fast = {"contract", "nsz", "arcp", "reassoc"}  # not "nnan" or "ninf": a loss that is not finite must stay so
    compiled: Callable[[Any], Any] = numba.njit(fastmath=fast, error_model="numpy", cache=True, nogil=True, **options)
    return compiled


def _instruction(f: Callable[..., Any]) -> Any:
    return intrinsic(f)


@_instruction
def _round(context: Any, x: Any) -> Any:
    """Rounds to the nearest whole number, as a float; |x| below 1000."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shifted = builder.fadd(args[0], ir.Constant(_FLOAT, _SHIFT + 0.5))
        whole = builder.sub(builder.fptosi(shifted, _INT), ir.Constant(_INT, _SHIFT))
        return builder.sitofp(whole, _FLOAT)

    return types.float32(types.float32), generate


@_instruction
def _power_of_two(context: Any, n: Any) -> Any:
    """Returns 2^n of a whole number from -126 to 127, by way of its bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        biased = builder.add(builder.fptosi(args[0], _INT), ir.Constant(_INT, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INT, 23)), _FLOAT)

    return types.float32(types.float32), generate


@numba.njit(fastmath={"contract", "nsz", "arcp"}, error_model="numpy", inline="always")
def _sigmoid(x: Any) -> Any:
    a = max(min(-x, _MOST), _LEAST)
    n = _round(a * _LOG2_E)
    r = a - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    return _ONE / (_ONE + (p * r * r + r + _ONE) * _power_of_two(n))


@_compiled()
def add_sums(y: Any, shift: Any, sums: Any, squares: Any) -> None:
    """Adds the columns' sums of y - shift and of its squares.

    Args:
        y: Shape (M, C).
        shift: Near the columns' means, shape (C,): it keeps the squares from cancelling.
        sums: float64 (C,), added to.
        squares: float64 (C,), added to.
    """
    m, chs = y.shape
    s, q = np.zeros(chs, np.float32), np.zeros(chs, np.float32)
    for start in range(0, m, _ROWS):
        s[:] = 0.0
        q[:] = 0.0
        for i in range(start, min(m, start + _ROWS)):
            for c in range(chs):
                d = y[i, c] - shift[c]
                s[c] += d
                q[c] += d * d
        for c in range(chs):
            sums[c] += s[c]
            squares[c] += q[c]


@_compiled()
def scale_silu(y: Any, scale: Any, offset: Any, out: Any) -> None:
    """Writes z sigmoid(z) of z = scale y + offset; y and out (M, C), scale and offset (C,)."""
    m, chs = y.shape
    for i in range(m):
        for c in range(chs):
            z = y[i, c] * scale[c] + offset[c]
            out[i, c] = z * _sigmoid(z)


@_compiled()
def silu_gradient(g: Any, y: Any, scale: Any, offset: Any, mean: Any, out: Any, sums: Any, products: Any) -> None:
    """Writes the gradient before the activation, and adds up what the normalisation's gradient needs.

    Args:
        g: Gradient of `scale_silu`'s output, shape (M, C).
        y: Its input, shape (M, C).
        scale: Shape (C,).
        offset: Shape (C,).
        mean: Of y's columns, shape (C,).
        out: Gradient d of z, shape (M, C), written.
        sums: float64 (C,); the columns' sums of d are added.
        products: float64 (C,); the columns' sums of d (y - mean) are added.
    """
    m, chs = y.shape
    s, q = np.zeros(chs, np.float32), np.zeros(chs, np.float32)
    for start in range(0, m, _ROWS):
        s[:] = 0.0
        q[:] = 0.0
        for i in range(start, min(m, start + _ROWS)):
            for c in range(chs):
                z = y[i, c] * scale[c] + offset[c]
                t = _sigmoid(z)
                d = g[i, c] * (t * (_ONE + z * (_ONE - t)))
                out[i, c] = d
                s[c] += d
                q[c] += d * (y[i, c] - mean[c])
        for c in range(chs):
            sums[c] += s[c]
            products[c] += q[c]


@_compiled()
def norm_gradient(d: Any, y: Any, scale: Any, slope: Any, shift: Any) -> None:
    """Replaces d by scale (d - shift - slope y); d and y (M, C), the others (C,)."""
    m, chs = y.shape
    for i in range(m):
        for c in range(chs):
            d[i, c] = scale[c] * (d[i, c] - shift[c] - y[i, c] * slope[c])


@_compiled()
def add_depthwise_weight_gradient(g: Any, x: Any, stride: int, out: Any) -> None:
    """Adds the gradient of a depthwise convolution's weight, padded by half a kernel.

    Args:
        g: Gradient of the output, shape (N, H', W', C).
        x: The input, shape (N, H, W, C).
        stride: Of the convolution.
        out: Shape (k, k, C), added to.
    """
    n, rows, columns, chs = g.shape
    k = out.shape[0]
    for b in range(n):
        for h in range(rows):
            for w in range(columns):
                for i in range(k):
                    y = h * stride + i - k // 2
                    if y < 0 or y >= x.shape[1]:
                        continue
                    for j in range(k):
                        z = w * stride + j - k // 2
                        if z < 0 or z >= x.shape[2]:
                            continue
                        for c in range(chs):
                            out[i, j, c] += g[b, h, w, c] * x[b, y, z, c]

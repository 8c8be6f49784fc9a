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
def _nearest(context: Any, x: Any) -> Any:
    """Returns the nearest whole number; |x| below 1000."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shifted = builder.fadd(args[0], ir.Constant(_FLOAT, _SHIFT + 0.5))
        return builder.sub(builder.fptosi(shifted, _INT), ir.Constant(_INT, _SHIFT))

    return types.int32(types.float32), generate


@_instruction
def _power_of_two(context: Any, n: Any) -> Any:
    """Returns 2^n of a whole number from -126 to 127, by way of its bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        biased = builder.add(args[0], ir.Constant(_INT, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INT, 23)), _FLOAT)

    return types.float32(types.int32), generate


@numba.njit(fastmath={"contract", "nsz", "arcp"}, error_model="numpy", inline="always")
def _sigmoid(x: Any) -> Any:
    a = max(min(-x, _MOST), _LEAST)
    power = _nearest(a * _LOG2_E)
    n = _f32(power)
    r = a - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    return _ONE / (_ONE + (p * r * r + r + _ONE) * _power_of_two(power))


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
def finish_statistics(
    sums: Any, shift: Any, n: int, gamma: Any, beta: Any, eps: float, statistics: Any, scaling: Any
) -> None:
    """Turns the sums of `add_sums` into what normalises n values a channel.

    Rows may be folded: W = r C columns hold r positions of C channels each.

    Args:
        sums: float64, shape (2, W).
        shift: As given to `add_sums`, shape (W,); alike for all positions.
        n: Values a channel.
        gamma: Weight of the normalisation, shape (C,).
        beta: Its bias, shape (C,).
        eps: Added to the variance.
        statistics: float64 (2, C), written: means, and inverse standard deviations.
        scaling: Shape (2, W), written: scale and offset, from input to normalised values.
    """
    chs, width = len(gamma), len(shift)
    for c in range(chs):
        first, second = 0.0, 0.0
        for column in range(c, width, chs):
            first += sums[0, column]
            second += sums[1, column]
        mean = first / n
        inverse = 1.0 / np.sqrt(max(second / n - mean * mean, 0.0) + eps)
        mean += shift[c]
        statistics[0, c], statistics[1, c] = mean, inverse
        for column in range(c, width, chs):
            scaling[0, column] = gamma[c] * inverse
            scaling[1, column] = beta[c] - mean * gamma[c] * inverse


@_compiled()
def norm_silu(y: Any, gamma: Any, beta: Any, eps: float, statistics: Any, scaling: Any, out: Any) -> None:
    """Normalises y by its own statistics and applies swish: all steps for one thread; y and out (M, W), folded."""
    shift = first_position(y, len(gamma))
    sums = np.zeros((2, y.shape[1]))
    add_sums(y, shift, sums[0], sums[1])
    finish_statistics(sums, shift, y.size // len(gamma), gamma, beta, eps, statistics, scaling)
    scale_silu(y, scaling[0], scaling[1], out)


@_compiled()
def first_position(y: Any, chs: int) -> Any:
    """Returns the first C values of y (M, W), repeated to a row of W."""
    row = np.empty(y.shape[1], np.float32)
    for column in range(len(row)):
        row[column] = y[0, column % chs]
    return row


@_compiled()
def centre_of(statistics: Any, width: int) -> Any:
    """Returns the means as a row of W."""
    chs = statistics.shape[1]
    row = np.empty(width, np.float32)
    for column in range(width):
        row[column] = statistics[0, column % chs]
    return row


@_compiled()
def finish_gradient(sums: Any, n: int, statistics: Any, line: Any, d_gamma: Any, d_beta: Any) -> None:
    """Turns the sums of `silu_gradient` into the parameters' gradients and what `norm_gradient` needs.

    Args:
        sums: float64, shape (2, W).
        n: Values a channel.
        statistics: Of `finish_statistics`.
        line: Shape (2, W), written: slope and shift.
        d_gamma: Shape (C,), written.
        d_beta: Shape (C,), written.
    """
    chs, width = statistics.shape[1], sums.shape[1]
    for c in range(chs):
        first, products = 0.0, 0.0
        for column in range(c, width, chs):
            first += sums[0, column]
            products += sums[1, column]
        mean, inverse = statistics[0, c], statistics[1, c]
        slope = products / n * inverse * inverse
        for column in range(c, width, chs):
            line[0, column] = slope
            line[1, column] = first / n - mean * slope
        d_gamma[c] = products * inverse
        d_beta[c] = first


@_compiled()
def norm_silu_gradient(g: Any, y: Any, statistics: Any, scaling: Any, out: Any, d_gamma: Any, d_beta: Any) -> None:
    """Writes the gradients of `norm_silu`: all steps for one thread; g, y and out (M, W), folded."""
    width = y.shape[1]
    sums, line = np.zeros((2, width)), np.empty((2, width), np.float32)
    centre = centre_of(statistics, width)
    silu_gradient(g, y, scaling[0], scaling[1], centre, out, sums[0], sums[1])
    finish_gradient(sums, y.size // statistics.shape[1], statistics, line, d_gamma, d_beta)
    norm_gradient(out, y, scaling[0], line[0], line[1])


@_compiled()
def add_products(g: Any, x: Any, sums: Any) -> None:
    """Adds the sums of g x over the pixels of every image: g and x (N, M, C), sums float64 (N, C)."""
    n, m, chs = x.shape
    s = np.zeros(chs, np.float32)
    for b in range(n):
        for start in range(0, m, _ROWS):
            s[:] = 0.0
            for i in range(start, min(m, start + _ROWS)):
                for c in range(chs):
                    s[c] += g[b, i, c] * x[b, i, c]
            for c in range(chs):
                sums[b, c] += s[c]


@_compiled()
def _add_five_by_five(g: Any, x: Any, out: Any) -> None:
    """`add_depthwise_weight_gradient` for the kernel and stride that most blocks have."""
    n, rows, columns, chs = g.shape
    padded = np.zeros((columns + 4, chs), np.float32)
    for b in range(n):
        for y in range(rows):
            padded[2 : columns + 2] = x[b, y]
            for i in range(max(0, y + 3 - rows), min(5, y + 3)):
                _add_row_of_five(g[b, y + 2 - i], padded, out[i])


@_compiled()
def _add_row_of_five(g: Any, x: Any, out: Any) -> None:
    """Adds what one row gives for one row of the kernel: four positions at once, so that sums are written once for all.

    Args:
        g: Shape (W, C).
        x: Shape (W + 4, C).
        out: Shape (5, C), added to.
    """
    columns, chs = g.shape
    whole = columns // 4 * 4
    for w in range(0, whole, 4):
        for c in range(chs):
            g0, g1, g2, g3 = g[w, c], g[w + 1, c], g[w + 2, c], g[w + 3, c]
            x0, x1, x2, x3 = x[w, c], x[w + 1, c], x[w + 2, c], x[w + 3, c]
            x4, x5, x6, x7 = x[w + 4, c], x[w + 5, c], x[w + 6, c], x[w + 7, c]
            a0 = out[0, c] + (g0 * x0 + g1 * x1 + g2 * x2 + g3 * x3)
            a1 = out[1, c] + (g0 * x1 + g1 * x2 + g2 * x3 + g3 * x4)
            a2 = out[2, c] + (g0 * x2 + g1 * x3 + g2 * x4 + g3 * x5)
            a3 = out[3, c] + (g0 * x3 + g1 * x4 + g2 * x5 + g3 * x6)
            a4 = out[4, c] + (g0 * x4 + g1 * x5 + g2 * x6 + g3 * x7)
            out[0, c], out[1, c], out[2, c], out[3, c], out[4, c] = a0, a1, a2, a3, a4
    for w in range(whole, columns):
        for j in range(5):
            for c in range(chs):
                out[j, c] += g[w, c] * x[w + j, c]


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
    if k == 5 and stride == 1:
        _add_five_by_five(g, x, out)
        return
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

"""Batch normalisation by the statistics of all processes' images: several processes train as one would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]
"""Returns the sum of a tensor over all processes; every one of them must call it."""


def synced_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, total: Total) -> Tensor:
    """Normalises by the statistics of all processes.

    Args:
        x: This process's share, shape (N, C, H, W).
        weight: Shape (C,).
        bias: Shape (C,).
        eps: Added to the variance.
        total: Sums over processes; called twice forward and once backward.
    """
    return cast(Tensor, _SyncedNorm.apply(x, weight, bias, eps, total))


class _SyncedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, total: Total) -> Tensor:
        n = x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float64)
        sums = total(torch.cat([x.sum((0, 2, 3), dtype=torch.float64), n]))
        ctx.total, ctx.n = total, sums[-1]
        centred = x - _over(sums[:-1] / ctx.n, x)
        inverse = torch.rsqrt(total((centred * centred).sum((0, 2, 3), dtype=torch.float64)) / ctx.n + eps)
        normalised = centred * _over(inverse, x)
        ctx.save_for_backward(normalised, weight, inverse)
        return normalised * _over(weight, x) + _over(bias, x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        normalised, weight, inverse = ctx.saved_tensors
        own = torch.stack([grad.sum((0, 2, 3)), (grad * normalised).sum((0, 2, 3))])
        mean, slope = ctx.total(own.double()) / ctx.n
        dx = (grad - _over(mean, grad) - normalised * _over(slope, grad)) * _over(weight * inverse, grad)
        # The parameters' gradients stay this process's own: they are averaged with all others, once a step.
        return dx, own[1], own[0], None, None


def _over(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype).view(1, -1, 1, 1)

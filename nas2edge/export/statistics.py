"""Whether a network's batch-normalisation statistics are those of the values that it normalises.

A sub-network cut from a supernet has the statistics of the largest network until it is recalibrated; its accuracy is
then that of guessing. Nothing that compares two forms of the same network can see that, so it is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from nas2edge.graph import BN_EPS
from nas2edge.supernet.static import StaticNet

MAX_SHIFT = 0.5
"""Standard deviations that a layer's means may be off, on average over its channels; 0.03 to 0.1 is usual."""
MAX_SPREAD = 0.7
"""Natural logarithm of the ratio of variances, likewise: a factor of two; 0.05 to 0.2 is usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    """How far the statistics of one layer are off.

    Args:
        layer: `<block>.<op>`.
        shift: Mean over the channels of the difference of means, in standard deviations.
        spread: Mean over the channels of the absolute logarithm of the ratio of variances.
    """

    layer: str
    shift: float
    spread: float

    @property
    def stale(self) -> bool:
        """Whether they are further off than sampling explains."""
        return not (self.shift <= MAX_SHIFT and self.spread <= MAX_SPREAD)


def staleness(net: StaticNet, images: Tensor) -> list[Staleness]:
    """Compares the stored statistics of all layers with those of a batch, the worst first.

    Args:
        net: The network, in evaluation mode.
        images: Normalised images (N, 3, S, S), of all classes.
    """
    found: list[Staleness] = []
    hooks = [
        module.register_forward_hook(_hook(name.removesuffix(".bn"), found))
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    try:
        with torch.no_grad():
            net(images)
    finally:
        for hook in hooks:
            hook.remove()
    return sorted(found, key=lambda item: -max(item.shift / MAX_SHIFT, item.spread / MAX_SPREAD))


def _hook(layer: str, found: list[Staleness]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        var_now, mean_now = (value.double() for value in torch.var_mean(inputs[0], (0, 2, 3)))
        mean, variance = (cast(Tensor, stored).double() for stored in (module.running_mean, module.running_var))
        shift = (mean_now - mean).abs() / (variance + BN_EPS).sqrt()
        spread = ((var_now + BN_EPS) / (variance + BN_EPS)).log().abs()
        found.append(Staleness(layer=layer, shift=float(shift.mean()), spread=float(spread.mean())))

    return hook

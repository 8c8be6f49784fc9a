"""Whether a network's batch-normalisation statistics are those of the values that it normalises.

A sub-network cut from a supernet has the statistics of the largest network until it is recalibrated; its accuracy is
then that of guessing. Nothing that compares two forms of the same network can see that, so it is looked at by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn

from nas2edge.graph import BN_EPS
from nas2edge.supernet.static import StaticNet

MAX_SHIFT = 0.5
"""Standard deviations that a layer's means may be off, on average over its channels; 0.03 to 0.1 is usual."""
MAX_SPREAD = 0.7
"""Natural logarithm of the ratio of variances, likewise: a factor of two; 0.05 to 0.2 is usual."""
PART = 8
"""Images at a time: of large networks, three times as fast as all at once."""


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
    """Compares the stored statistics of all layers with those of images, the worst first.

    Args:
        net: The network, in evaluation mode.
        images: Normalised images (N, 3, S, S), of all classes.
    """
    norms = {name: module for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    seen = {name: _Seen(norm) for name, norm in norms.items()}
    hooks = [norm.register_forward_hook(seen[name].hook) for name, norm in norms.items()]
    try:
        with torch.no_grad():
            for part in torch.split(images, PART):
                net(part)
    finally:
        for hook in hooks:
            hook.remove()
    found = [item.staleness(name.removesuffix(".bn")) for name, item in seen.items()]
    return sorted(found, key=lambda item: -max(item.shift / MAX_SHIFT, item.spread / MAX_SPREAD))


@final
class _Seen:
    """The values that one layer normalised, summed up part by part.

    Args:
        norm: The layer. Its mean is taken off first, so that squares in single precision are exact enough.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self._mean = cast(Tensor, norm.running_mean)
        self._variance = cast(Tensor, norm.running_var).double()
        self._n = 0
        self._sums = torch.zeros(2, norm.num_features, dtype=torch.float64)

    def hook(self, _module: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> None:
        """Adds a batch (N, channels, H, W)."""
        values = inputs[0].permute(0, 2, 3, 1).flatten(0, 2) - self._mean
        ones = values.new_ones(len(values))
        self._n += len(values)
        self._sums += torch.stack([ones @ values, ones @ values.square()])

    def staleness(self, layer: str) -> Staleness:
        """Returns how far the layer's statistics are from these values."""
        offset, square = self._sums / self._n
        shift = offset.abs() / (self._variance + BN_EPS).sqrt()
        spread = ((square - offset**2 + BN_EPS) / (self._variance + BN_EPS)).log().abs()
        return Staleness(layer=layer, shift=float(shift.mean()), spread=float(spread.mean()))

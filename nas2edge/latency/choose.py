"""Which blocks to measure first when there is no time for all: those that matter most to networks and are known least.

A block's weight is the share of a network's time that it has on average. The next block is the one with the greatest
weight times uncertainty, given those before it; a Gaussian process (`nas2edge.latency.fill`) tells the uncertainty, for
which it needs no measurement.

>>> order = choose(layers, block_weights([space], layers, rng=rng), n=300)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nas2edge.latency.fill import LENGTHS, Kernel, block_features
from nas2edge.latency.kernels import KernelLaw
from nas2edge.plan import LayerSpec, plan
from nas2edge.space import SearchSpace

Floats = npt.NDArray[np.float64]

_SAMPLED = 300
_NOISE = 0.05
_LEAST_WEIGHT = 1e-5

_ANY_CPU = KernelLaw(
    name="any",
    launch_us=0.5,
    bandwidth_gb_s=20.0,
    pointwise_gmac_s=40.0,
    depthwise_gmac_s=10.0,
    value_bytes=4,
    peak_gmac_s=1000.0,
    fused_acts=("relu", "swish"),
    rel_sigma=1.0,
    source="the proportions of common processors; it orders measurements and appears in no table",
)


def block_weights(
    spaces: Sequence[SearchSpace],
    layers: Sequence[LayerSpec],
    *,
    rng: np.random.Generator,
    ms: Floats | None = None,
) -> Floats:
    """Returns the mean share of a network's time that each block has, over random networks of all spaces: shape (n,).

    Args:
        spaces: The spaces; each counts the same.
        layers: Distinct blocks.
        rng: Draws networks.
        ms: Their times, as far as known; by the proportions of common processors, if None.
    """
    place = {layer.key: i for i, layer in enumerate(layers)}
    times = np.array([_ANY_CPU.layer_ms(layer) for layer in layers]) if ms is None else ms
    weights = np.zeros(len(layers))
    for space in spaces:
        for subnet in space.decode(space.sample(_SAMPLED, rng)):
            found = [place[layer.key] for layer in plan(space, subnet) if layer.key in place]
            if found:
                share = times[found] / times[found].sum()
                np.add.at(weights, found, share / (_SAMPLED * len(spaces)))
    return weights + _LEAST_WEIGHT


def choose(
    layers: Sequence[LayerSpec], weights: Floats, *, n: int, chosen: Sequence[int] = (), kernel: Kernel | None = None
) -> list[int]:
    """Returns the next n blocks to measure, as indices, the most informative first.

    Args:
        layers: All blocks.
        weights: How much each matters: shape (len(layers),).
        n: How many; fewer if there are not as many left.
        chosen: Those that are measured already.
        kernel: Covariance as fitted to these; a guess if None.
    """
    kernel = kernel or Kernel(lengths=LENGTHS, amplitude=1.0, noise=_NOISE)
    found = block_features(layers)
    covariance = kernel.between(found, found) / kernel.amplitude**2
    variance = np.diag(covariance).copy()
    total = min(len(layers), len(chosen) + n)
    factor = np.zeros((total, len(layers)))
    order: list[int] = []
    waiting = list(chosen)
    for step in range(total):
        known = waiting.pop(0) if waiting else None
        i = int(np.argmax(variance * weights**2)) if known is None else known
        if known is None:
            order.append(i)
        # One step of a Cholesky factorisation: what is known once block i is measured.
        left = covariance[i] - factor[:step].T @ factor[:step, i]
        factor[step] = left / np.sqrt(max(left[i], 0.0) + _NOISE**2)
        variance = np.maximum(variance - factor[step] ** 2, 0.0)
        variance[i] = -1.0  # never again
        variance[order] = -1.0
        variance[list(chosen)] = -1.0
    return order

"""Metrics that are sums over layers, evaluated for whole populations with a few table look-ups a sub-network.

MACs, parameters and latency are sums over a plan's layers. What a stage contributes depends on seven choices at most
(resolution, width before, width, depth, kernel size, expansion ratio), so it is summed beforehand; a population is then
scored by one gather a stage:

>>> macs = AdditiveMetric(space, count_macs)
>>> macs(space.sample(100_000, rng)).shape
(100000,)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt

from nas2edge.plan import LayerSpec, head_layer, stage_layers, stem_layer
from nas2edge.space import Codes, SearchSpace


class AdditiveMetric:
    """A function from populations to one number a sub-network, the sum of `value` over its layers.

    Args:
        space: The space that the populations belong to.
        value: What one layer contributes; called once per distinct layer of the space.
    """

    def __init__(self, space: SearchSpace, value: Callable[[LayerSpec], float]) -> None:
        cache: dict[str, float] = {}

        def cached(layer: LayerSpec) -> float:
            key = layer.key
            if key not in cache:
                cache[key] = float(value(layer))
            return cache[key]

        self._pieces = [_stem_piece(space, cached)]
        self._pieces += [_stage_piece(space, i, cached) for i in range(len(space.stages))]
        self._pieces.append(_head_piece(space, cached))

    def __call__(self, codes: Codes) -> npt.NDArray[np.float64]:
        """Scores a population of shape (n, genes); returns shape (n,)."""
        total = np.zeros(len(codes))
        for columns, strides, table in self._pieces:
            total += table[codes[:, columns] @ strides]
        return total


_Piece = tuple[list[int], Codes, npt.NDArray[np.float64]]


def _stem_piece(space: SearchSpace, value: Callable[[LayerSpec], float]) -> _Piece:
    def total(resolution: int, width: int) -> float:
        return value(stem_layer(space, resolution=resolution, out_chs=width))

    return _tabulate(space, ["resolution", "width.0"], total)


def _stage_piece(space: SearchSpace, i: int, value: Callable[[LayerSpec], float]) -> _Piece:
    side = _sides(space, before_stage=i)

    def total(resolution: int, in_chs: int, width: int, depth: int, kernel_size: int, expand_ratio: int) -> float:
        layers = stage_layers(
            space,
            i,
            hw_in=side[resolution],
            in_chs=in_chs,
            width=width,
            depth=min(depth, 2),
            kernel_size=kernel_size,
            expand_ratio=expand_ratio,
        )
        # Blocks after the second are the second again.
        return value(layers[0]) + (depth - 1) * value(layers[-1])

    genes = ["resolution", f"width.{i}", f"width.{i + 1}", f"depth.{i}", f"kernel_size.{i}", f"expand_ratio.{i}"]
    return _tabulate(space, genes, total)


def _head_piece(space: SearchSpace, value: Callable[[LayerSpec], float]) -> _Piece:
    n = len(space.stages)
    side = _sides(space, before_stage=n)

    def total(resolution: int, in_chs: int, width: int) -> float:
        return value(head_layer(space, hw_in=side[resolution], in_chs=in_chs, width=width))

    return _tabulate(space, ["resolution", f"width.{n}", f"width.{n + 1}"], total)


def _tabulate(space: SearchSpace, genes: list[str], total: Callable[..., float]) -> _Piece:
    columns = [space.genes.index(gene) for gene in genes]
    choices = [space.choices[column] for column in columns]
    table = np.array([total(*values) for values in product(*choices)])
    sizes = [len(values) for values in choices]
    strides = np.array([int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))], dtype=np.int64)
    return columns, strides, table


def _sides(space: SearchSpace, *, before_stage: int) -> dict[int, int]:
    strides = [space.stem_stride, *(stage.stride for stage in space.stages[:before_stage])]
    sides = {}
    for resolution in space.resolution:
        side = resolution
        for stride in strides:
            side = -(-side // stride)
        sides[resolution] = side
    return sides

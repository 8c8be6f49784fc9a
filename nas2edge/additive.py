"""Metrics that are sums over layers, evaluated for whole populations with a few table look-ups a sub-network.

MACs, parameters and latency are sums over a plan's layers. They are summed beforehand for every choice of a stage
(`nas2edge.pieces`); a population is then scored by one gather:

>>> macs = AdditiveMetric(space, count_macs)
>>> macs(space.sample(100_000, rng)).shape
(100000,)

The least and the greatest value of the whole space are exact, however large it is:

>>> macs.minimum().value
203389568.0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import numpy.typing as npt

from nas2edge.pieces import Array, Extreme, LookUp, Piece, find_extreme, make_pieces
from nas2edge.plan import LayerSpec
from nas2edge.space import Codes, SearchSpace


@final
class AdditiveMetric:
    """A function from populations to one number a sub-network, the sum of `value` over its layers.

    Args:
        space: The space that the populations belong to.
        value: What one layer contributes; called once per distinct layer of the space.

    Attributes:
        pieces: The parts of the sum, from stem to head.
    """

    def __init__(self, space: SearchSpace, value: Callable[[LayerSpec], float]) -> None:
        self._hold(make_pieces(space, value, repeat=_sum_of_blocks), len(space.genes))

    @classmethod
    def of_pieces(cls, pieces: Sequence[Piece], *, genes: int) -> AdditiveMetric:
        """Returns the metric of tables that were made otherwise, such as a fit's."""
        metric = cls.__new__(cls)
        metric._hold(tuple(pieces), genes)
        return metric

    def __call__(self, codes: Codes) -> Array:
        """Scores a population of shape (n, genes); returns shape (n,)."""
        return np.asarray(self._look_up(codes).sum(axis=1))

    def minimum(self) -> Extreme:
        """Returns the least value over the whole space; exact."""
        return self._extreme(sign=1.0)

    def maximum(self) -> Extreme:
        """Returns the greatest value over the whole space; exact."""
        return self._extreme(sign=-1.0)

    def restricted(self, kept: Sequence[Sequence[int]]) -> AdditiveMetric:
        """Returns the metric of a part of the space: of every gene, the indices of the choices that are kept."""
        return self.of_pieces([piece.restricted(kept) for piece in self.pieces], genes=self._genes)

    def plus(self, other: AdditiveMetric, *, weight: float = 1.0) -> AdditiveMetric:
        """Returns this metric plus a multiple of another of the same space."""
        pairs = zip(self.pieces, other.pieces, strict=True)
        return self.of_pieces([a.with_table(a.table + weight * b.table) for a, b in pairs], genes=self._genes)

    def _hold(self, pieces: tuple[Piece, ...], genes: int) -> None:
        self.pieces = pieces
        self._genes = genes
        self._look_up = LookUp(pieces, genes=genes)

    def _extreme(self, *, sign: float) -> Extreme:
        codes = find_extreme(self.pieces, np.add, genes=self._genes, sign=sign)
        return Extreme(value=float(self(codes)[0]), codes=codes)


def _sum_of_blocks(first: Array, again: Array, further: npt.NDArray[np.int64]) -> Array:
    return first + further * again

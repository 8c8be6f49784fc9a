"""Metrics that are the greatest of a plan's layers, such as memory for activations, for whole populations.

>>> peak = PeakMetric(space, peak_activations)
>>> peak(space.sample(100_000, rng)).shape
(100000,)

As with sums (`nas2edge.additive`), the least and the greatest value of the whole space are exact, however large it is.
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
class PeakMetric:
    """A function from populations to one number a sub-network, the greatest `value` of its layers.

    Args:
        space: The space that the populations belong to.
        value: What one layer needs; called once per distinct layer of the space.

    Attributes:
        pieces: The parts of the network, from stem to head.
    """

    def __init__(self, space: SearchSpace, value: Callable[[LayerSpec], float]) -> None:
        self._hold(make_pieces(space, value, repeat=_greatest_of_blocks), len(space.genes))

    def __call__(self, codes: Codes) -> Array:
        """Scores a population of shape (n, genes); returns shape (n,)."""
        return np.asarray(self._look_up(codes).max(axis=1))

    def minimum(self) -> Extreme:
        """Returns the least value over the whole space; exact."""
        return self._extreme(np.maximum, sign=1.0)

    def maximum(self) -> Extreme:
        """Returns the greatest value over the whole space; exact."""
        # Values are negated here, so that the greatest is the least.
        return self._extreme(np.minimum, sign=-1.0)

    def restricted(self, kept: Sequence[Sequence[int]]) -> PeakMetric:
        """Returns the metric of a part of the space: of every gene, the indices of the choices that are kept."""
        metric = PeakMetric.__new__(PeakMetric)
        metric._hold(tuple(piece.restricted(kept) for piece in self.pieces), self._genes)
        return metric

    def _hold(self, pieces: tuple[Piece, ...], genes: int) -> None:
        self.pieces = pieces
        self._genes = genes
        self._look_up = LookUp(pieces, genes=genes)

    def _extreme(self, join: np.ufunc, *, sign: float) -> Extreme:
        codes = find_extreme(self.pieces, join, genes=self._genes, sign=sign)
        return Extreme(value=float(self(codes)[0]), codes=codes)


def _greatest_of_blocks(first: Array, again: Array, further: npt.NDArray[np.int64]) -> Array:
    return np.where(further > 0, np.maximum(first, again), first)

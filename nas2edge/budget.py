"""Drawing sub-networks of a given cost: uniformly from all that cost about so much, with no rejection.

Uniform sampling almost never sees the cheap end of a space: of AttentiveNAS's, 0.1 % of the draws are below 300 MMACs.
AttentiveNAS therefore draws a cost first, and then each choice on its own from its distribution at that cost, until the
cost comes out right or a hundred tries are over. Here the number of sub-networks by cost is counted by dynamic
programming over the stages, and a walk back through the counts draws from just those that cost so much; every cost that
exists is reachable, and no draw is rejected.

>>> sampler = BudgetSampler(space, AdditiveMetric(space, count_macs))
>>> codes = sampler.draw(bin=3, n=5, rng=rng)
"""

from __future__ import annotations

from typing import final

import numpy as np
import numpy.typing as npt

from nas2edge.additive import AdditiveMetric
from nas2edge.pieces import Piece
from nas2edge.space import Codes, SearchSpace

_FINE_STEPS = 4096


@final
class BudgetSampler:
    """Draws from the sub-networks whose metric falls into a bin.

    Args:
        space: The space.
        metric: An additive metric of it, such as MACs.
        bins: Bins of equal width between the least and the greatest value.
        unit: Values are rounded to it inside each stage; by default 1/4096 of the range, so that a drawn value can lie
            outside its bin by at most (stages + 2) / 8192 of the range.

    Attributes:
        edges: Borders of the bins, in the metric's unit: shape (bins + 1,).
        prior: Share of all sub-networks that falls into each bin: shape (bins,).
    """

    def __init__(
        self, space: SearchSpace, metric: AdditiveMetric, *, bins: int = 64, unit: float | None = None
    ) -> None:
        least, greatest = metric.minimum().value, metric.maximum().value
        self._genes = len(space.genes)
        self._pieces = metric.pieces
        self._unit = unit or max((greatest - least) / _FINE_STEPS, 1e-12)
        steps = [np.rint(piece.table / self._unit).astype(np.int64) for piece in self._pieces]
        self._origins = [int(step.min()) for step in steps]
        self._steps = [step - origin for step, origin in zip(steps, self._origins, strict=True)]
        self._counts = _count_by_cost(self._pieces, self._steps)
        self.edges = np.linspace(least, greatest, bins + 1)
        totals = self._counts[-1].sum((0, 1))
        self._bin_of_step = self._bins(len(totals))
        self.prior = np.bincount(self._bin_of_step, weights=totals, minlength=bins) / totals.sum()

    def draw(self, *, bin: int, n: int, rng: np.random.Generator) -> Codes:
        """Draws n sub-networks uniformly from those of a bin: shape (n, genes).

        Raises:
            ValueError: No sub-network falls into the bin.
        """
        weights = self._counts[-1] * (self._bin_of_step == bin)
        if not weights.any():
            raise ValueError(f"no sub-network has a value in bin {bin}, {self.edges[bin]:g} to {self.edges[bin + 1]:g}")
        ends = _choose(weights, n, rng)
        return np.array([self._walk_back(end, rng) for end in ends], dtype=np.int64).reshape(n, self._genes)

    def draw_bins(self, n: int, rng: np.random.Generator, *, uniform: bool = False) -> npt.NDArray[np.int64]:
        """Draws n bins: by their share of the space, or evenly from those that are not empty."""
        chances = (self.prior > 0) / np.count_nonzero(self.prior) if uniform else self.prior
        return rng.choice(len(chances), size=n, p=chances)

    def _bins(self, n_steps: int) -> npt.NDArray[np.int64]:
        values = (np.arange(n_steps) + sum(self._origins)) * self._unit
        return np.clip(np.searchsorted(self.edges, values, side="right") - 1, 0, len(self.edges) - 2)

    def _walk_back(self, end: tuple[int, ...], rng: np.random.Generator) -> Codes:
        row = np.zeros(self._genes, dtype=np.int64)
        resolution, width, cost = end
        row[self._pieces[0].columns[0]] = resolution
        for i in range(len(self._pieces) - 1, 0, -1):
            piece, before = self._pieces[i], self._counts[i - 1][resolution]
            steps = self._steps[i][resolution][:, width]  # (width that enters, other genes...)
            left = cost - steps
            entering = np.indices(steps.shape)[0]
            inside = (left >= 0) & (left < before.shape[1])
            weights = np.where(inside, before[entering, np.where(inside, left, 0)], 0.0)
            (choice,) = _choose(weights, 1, rng)
            for column, index in zip(piece.columns[2:], (width, *choice[1:]), strict=True):
                row[column] = index
            cost, width = int(left[choice]), int(choice[0])
        row[self._pieces[0].columns[1]] = width
        return row


def _count_by_cost(pieces: tuple[Piece, ...], steps: list[Codes]) -> list[npt.NDArray[np.float64]]:
    """Returns, after each piece, how many ways lead to (resolution, width that leaves, cost in steps)."""
    n_res, n_width = steps[0].shape
    first = np.zeros((n_res, n_width, int(steps[0].max()) + 1))
    first[(*np.indices(steps[0].shape), steps[0])] = 1.0
    counts = [first]
    for step in steps[1:]:
        before = counts[-1]
        after = np.zeros((n_res, step.shape[2], before.shape[2] + int(step.max())))
        for index in np.ndindex(step.shape):
            resolution, entering, leaving = index[:3]
            shift = int(step[index])
            after[resolution, leaving, shift : shift + before.shape[2]] += before[resolution, entering]
        counts.append(after)
    return counts


def _choose(weights: npt.NDArray[np.float64], n: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Draws n indices of an array with chances in proportion to its values."""
    total = np.cumsum(weights.ravel())
    flat = np.searchsorted(total, rng.random(n) * total[-1], side="right")
    return list(zip(*(axis.tolist() for axis in np.unravel_index(flat, weights.shape)), strict=True))

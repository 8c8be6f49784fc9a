"""Which sub-networks a step trains besides the largest and the smallest.

>>> sampler = make_sampler(space, recipe)
>>> subnets = sampler.draw(rng, score)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.budget import BudgetSampler
from nas2edge.costs import count_macs
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.train.recipe import Recipe

Score = Callable[[SubnetConfig], float]
"""Loss of a sub-network on the current batch, or what a predictor says of it: lower is better."""


class Sampler(ABC):
    """Chooses the random sub-networks of a step."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, score: Score) -> list[SubnetConfig]:
        """Returns the sub-networks of one step; `score` is called only if the choice depends on it."""


@final
class RandomSampler(Sampler):
    """Draws each choice uniformly: the sandwich rule's middle (Yu et al., US-Nets; BigNAS, section 3.1).

    Args:
        space: The space.
        n: Sub-networks a step.
    """

    def __init__(self, space: SearchSpace, *, n: int) -> None:
        self._space, self._n = space, n

    def draw(self, rng: np.random.Generator, score: Score) -> list[SubnetConfig]:
        return self._space.decode(self._space.sample(self._n, rng))


@final
class AttentiveSampler(Sampler):
    """Draws some candidates of about equal MACs and keeps the best or the worst of them (AttentiveNAS, section 4).

    MACs are drawn first, then candidates uniformly from all sub-networks that have them, exactly and without rejection
    (`nas2edge.budget`).

    Args:
        space: The space.
        n: Sub-networks a step.
        candidates: Candidates for each.
        worst: Keep the worst (WorstUp) rather than the best (BestUp).
        even: Draw all bins of MACs evenly rather than by their share of the space.
        bins: Bins of MACs.
    """

    def __init__(self, space: SearchSpace, *, n: int, candidates: int, worst: bool, even: bool, bins: int) -> None:
        self._space, self._n, self._candidates = space, n, candidates
        self._worst, self._even = worst, even
        self.budget = BudgetSampler(space, AdditiveMetric(space, count_macs), bins=bins)

    def draw(self, rng: np.random.Generator, score: Score) -> list[SubnetConfig]:
        chosen = []
        for target in self.budget.draw_bins(self._n, rng, uniform=self._even).tolist():
            codes = self.budget.draw(bin=target, n=self._candidates, rng=rng)
            candidates = self._space.decode(codes)
            scores = np.array([score(candidate) for candidate in candidates])
            chosen.append(candidates[int(scores.argmax() if self._worst else scores.argmin())])
        return chosen


def make_sampler(space: SearchSpace, recipe: Recipe) -> Sampler:
    """Returns the sampler that a recipe asks for."""
    if recipe.choose == "random":
        return RandomSampler(space, n=recipe.random_subnets)
    return AttentiveSampler(
        space,
        n=recipe.random_subnets,
        candidates=recipe.candidates,
        worst=recipe.choose == "worst",
        even=recipe.prior == "even",
        bins=recipe.bins,
    )

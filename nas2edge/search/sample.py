"""A sample of everything that a search scored, at even steps and of bounded size, for pictures of what lies behind it.

>>> sample = ScoredSample(objectives=2)
>>> sample.add(scores)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt

from nas2edge.search.pareto import Scores

MOST = 2000


@final
class ScoredSample:
    """Every k-th row of scores; k doubles whenever twice `MOST` are held.

    Args:
        objectives: Columns of scores.

    Attributes:
        total: Rows that were added.
    """

    def __init__(self, *, objectives: int) -> None:
        self._held: list[Scores] = [np.zeros((0, objectives))]
        self._n, self._step = 0, 1
        self.total = 0

    def add(self, scores: Scores) -> None:
        """Considers more rows, in the order in which they were scored: shape (n, objectives)."""
        first = -self.total % self._step
        self.total += len(scores)
        taken = scores[first :: self._step]
        self._held.append(taken)
        self._n += len(taken)
        while self._n >= 2 * MOST:
            self._held = [self.scores()[::2]]
            self._n, self._step = len(self._held[0]), 2 * self._step

    def scores(self) -> Scores:
        """Returns the rows that are held: shape (n, objectives), n below 2 * `MOST`."""
        return np.concatenate(self._held)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Returns the state, from which `restore` goes on."""
        return {"sample_scores": self.scores(), "sample_counters": np.array([self._step, self.total])}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Goes on from a state."""
        self._held = [arrays["sample_scores"]]
        self._n = len(self._held[0])
        self._step, self.total = (int(value) for value in arrays["sample_counters"])

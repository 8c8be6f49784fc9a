"""Spaces of other kinds than `SearchSpace`: whatever has a size, decodes codes, and plans what it decodes.

>>> class Chains:  # one to eight blocks of one shape
...     size = 8
...     def decode(self, codes): return [1 + int(row[0]) for row in codes]
...     def plan(self, length): return [stem, *([block] * length), head]
>>> search(Chains(), evaluator=evaluator)

Costs are worked out plan by plan, and remembered; so a search takes longer than one of a `SearchSpace`, whose costs are
summed beforehand, and the least and greatest costs are not known beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import numpy.typing as npt

from nas2edge.errors import SpaceError
from nas2edge.plan import LayerSpec
from nas2edge.space import Codes, SearchSpace


@runtime_checkable
class Space(Protocol):
    """What a space must offer to be searched; `SearchSpace`, with `nas2edge.plan`, does the same and more.

    A member is coded as a row of whole numbers, one a gene. Where the space has `cardinalities`, the number of choices
    of every gene, rows have as many columns; else a row has one column that counts the members from 0 to size - 1.
    Genes are worth having: evolution varies one choice and keeps the others.

    Layers need `ops`, `shortcut` and the sides and channels that `nas2edge.costs` reads, as `LayerSpec` has them.
    """

    @property
    def size(self) -> int:
        """Number of members."""

    def decode(self, codes: Codes) -> Sequence[Hashable]:
        """Returns the members of a population: shape (n, genes)."""

    def plan(self, subnet: Any) -> Sequence[Any]:
        """Returns a member's layers."""


@final
class PlannedSpace:
    """A `Space` with what algorithms need of it: drawing, mutation and crossover of populations.

    Args:
        space: The space.

    Raises:
        SpaceError: It has no members, or its size is not the product of its cardinalities.
    """

    def __init__(self, space: Space) -> None:
        self.inner = space
        self.name = str(getattr(space, "name", type(space).__name__))
        given = getattr(space, "cardinalities", None)
        self.cardinalities: Codes = np.array([space.size] if given is None else list(given), dtype=np.int64)
        if space.size < 1 or math.prod(self.cardinalities.tolist()) != space.size:
            raise SpaceError(
                f"the space {self.name!r} has the size {space.size} and the cardinalities "
                f"{self.cardinalities.tolist()}; expected a size of at least 1 that is their product"
            )
        self.genes: tuple[str, ...] = tuple(getattr(space, "genes", map(str, range(len(self.cardinalities)))))
        self.choices: tuple[tuple[int, ...], ...] = tuple(tuple(range(n)) for n in self.cardinalities.tolist())
        self._plans: dict[bytes, Sequence[LayerSpec]] = {}

    @property
    def size(self) -> int:
        """Number of members."""
        return self.inner.size

    @property
    def digest(self) -> str:
        """What a state of a search is recognised by; the layers are not part of it."""
        return f"{self.name} {self.cardinalities.tolist()}"

    def decode(self, codes: Codes) -> list[Any]:
        """Returns the members of a population."""
        return list(self.inner.decode(codes))

    def sample(self, n: int, rng: np.random.Generator) -> Codes:
        """Draws n members, every gene uniform: shape (n, genes)."""
        return rng.integers(0, self.cardinalities, size=(n, len(self.cardinalities)), dtype=np.int64)

    def mutate(self, codes: Codes, rng: np.random.Generator, *, rate: float) -> Codes:
        """Changes each gene with probability `rate`, always to a different value."""
        changed = (rng.random(codes.shape) < rate) & (self.cardinalities > 1)
        steps = rng.integers(1, np.maximum(self.cardinalities, 2), size=codes.shape)
        return np.where(changed, (codes + steps) % self.cardinalities, codes)

    def crossover(self, a: Codes, b: Codes, rng: np.random.Generator) -> Codes:
        """Takes each gene from one of two parents with equal probability."""
        return np.where(rng.integers(0, 2, size=a.shape, dtype=np.bool_), a, b)

    def plans(self, codes: Codes) -> list[Sequence[LayerSpec]]:
        """Returns the layers of each member of a population; each member is planned once."""
        keys = [row.tobytes() for row in np.ascontiguousarray(codes)]
        missing = [i for i, key in enumerate(keys) if key not in self._plans]
        for i, subnet in zip(missing, self.decode(codes[missing]) if missing else [], strict=True):
            self._plans[keys[i]] = tuple(self.inner.plan(subnet))
        return [self._plans[key] for key in keys]


@final
class PlanMetric:
    """A function from populations to a number of each member's layers.

    Args:
        space: The space.
        value: The number.
    """

    def __init__(self, space: PlannedSpace, value: Callable[[Sequence[LayerSpec]], float]) -> None:
        self._space, self._value = space, value
        self._known: dict[bytes, float] = {}

    def __call__(self, codes: Codes) -> npt.NDArray[np.float64]:
        """Returns the numbers of a population: shape (n,)."""
        rows = np.ascontiguousarray(codes)
        keys = [row.tobytes() for row in rows]
        missing = [i for i, key in enumerate(keys) if key not in self._known]
        for i, layers in zip(missing, self._space.plans(rows[missing]), strict=True):
            self._known[keys[i]] = float(self._value(layers))
        return np.array([self._known[key] for key in keys], dtype=np.float64)


AnySpace = SearchSpace | PlannedSpace
"""What algorithms search."""

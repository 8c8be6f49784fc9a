"""The best accuracy within a limit, exactly, where accuracy and cost are both sums over a network's pieces.

Dynamic programming over the pieces on a grid of costs: of all beginnings of a network that share resolution, last
width and cost in steps of the grid, only the most accurate matters. Each piece's cost is rounded *up* to whole steps,
so a network within a limit on the grid keeps the limit in truth. Rounded *down* instead, the same programme bounds what
any network within the limit can reach; the two together say how far the answer can be from the optimum.

>>> found = exact_front(accuracy, latency, limit=20.0)
>>> found.codes[-1], found.bound  # the best within the limit, and what none exceeds
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas2edge.additive import AdditiveMetric
from nas2edge.pieces import Array, Piece, make_piece
from nas2edge.search.evolution import spread
from nas2edge.search.ledger import Vector
from nas2edge.space import Codes, SearchSpace

STEPS = 4096
_SAMPLES = 4000
_NEVER = -np.inf


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactFront:
    """What no other sub-network improves on, up to the grid.

    Args:
        codes: Sub-networks in ascending order of cost: shape (n, genes); none if the limit is out of reach.
        bound: Accuracy that no sub-network within the limit exceeds.
        unit: Step of the grid, in the cost's unit; a network's rounding stays below the number of pieces times it.
    """

    codes: Codes
    bound: float
    unit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactness:
    """In what sense a search was exact.

    Args:
        fit_error: Root mean square error of the sum over pieces that stood for the accuracy; 0 where it is that sum.
        bound: Accuracy, by that sum, that no sub-network within the loosest limit exceeds.
        unit: Step of the grid of costs.
    """

    fit_error: float
    bound: float
    unit: float


def exact_front(
    accuracy: AdditiveMetric, cost: AdditiveMetric, *, limit: float | None = None, steps: int = STEPS
) -> ExactFront:
    """Returns the front of accuracy against cost up to a limit.

    Args:
        limit: The greatest cost; by default that of the whole space.
        steps: Steps of the grid between the least cost and the limit.
    """
    least, greatest = cost.minimum().value, cost.maximum().value
    top = greatest if limit is None else min(limit, greatest)
    genes = cost.minimum().codes.shape[1]
    if top < least:
        return ExactFront(codes=np.zeros((0, genes), dtype=np.int64), bound=_NEVER, unit=0.0)
    unit = max((top - least) / steps, 1e-12 * top)
    grid = _Grid.rounded(cost, accuracy, unit=unit, top=top, rounding=np.ceil)
    best = grid.best()
    # At the end, of each number of steps only what is better than all with fewer.
    gains = np.flatnonzero(best > np.concatenate([[_NEVER], np.maximum.accumulate(best)[:-1]]))
    codes = np.array([grid.walk_back(int(step)) for step in gains], dtype=np.int64).reshape(len(gains), genes)
    codes = np.vstack([codes, cost.minimum().codes])
    codes = codes[cost(codes) <= top]
    optimist = _Grid.rounded(cost, accuracy, unit=unit, top=top, rounding=np.floor)
    bound = min(float(optimist.best().max()), accuracy.maximum().value)
    return ExactFront(codes=codes[np.argsort(cost(codes), kind="stable")], bound=bound, unit=unit)


def fit_additive(
    space: SearchSpace, accuracy: Callable[[Codes], Vector], rng: np.random.Generator, *, samples: int = _SAMPLES
) -> tuple[AdditiveMetric, float]:
    """Fits a sum over pieces to an accuracy: ridge regression on choices, and on pairs of choices of one piece.

    Returns:
        The fit, and its root mean square error on sub-networks that it was not fitted to.
    """
    pieces = [
        make_piece(columns, np.zeros([len(space.choices[column]) for column in columns])) for columns in _columns(space)
    ]
    codes = np.vstack([spread(space, samples, rng), space.sample(samples // 4, rng)])
    values = np.asarray(accuracy(codes), dtype=np.float64)
    design = np.concatenate([_indicators(space, piece.columns, codes) for piece in pieces], axis=1)
    train = np.arange(len(codes)) % 5 != 0
    mean = float(values[train].mean())
    gram = design[train].T @ design[train] + 0.1 * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, design[train].T @ (values[train] - mean))
    error = float(np.sqrt(((design[~train] @ weights + mean - values[~train]) ** 2).mean()))
    filled, start = [], 0
    for i, piece in enumerate(pieces):
        every = np.zeros((piece.table.size, len(space.genes)), dtype=np.int64)
        every[:, piece.columns] = np.stack(np.unravel_index(np.arange(piece.table.size), piece.table.shape), axis=1)
        features = _indicators(space, piece.columns, every)
        table = (features @ weights[start : start + features.shape[1]]).reshape(piece.table.shape)
        filled.append(piece.with_table(np.ascontiguousarray(table + (mean if i == 0 else 0.0))))
        start += features.shape[1]
    return AdditiveMetric.of_pieces(filled, genes=len(space.genes)), error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Grid:
    """Best accuracies after each piece: by resolution, width that leaves, and cost in steps.

    Args:
        pieces: Of the accuracy.
        steps: Cost of each entry of the pieces, in steps.
        values: One array a piece: shape (resolutions, widths, steps).
    """

    pieces: tuple[Piece, ...]
    steps: list[npt.NDArray[np.int64]]
    values: list[Array]

    @classmethod
    def rounded(
        cls,
        cost: AdditiveMetric,
        accuracy: AdditiveMetric,
        *,
        unit: float,
        top: float,
        rounding: Callable[[Array], Array],
    ) -> _Grid:
        origins = [piece.table.min() for piece in cost.pieces]
        steps = [
            rounding((piece.table - origin) / unit).astype(np.int64)
            for piece, origin in zip(cost.pieces, origins, strict=True)
        ]
        n = max(0, int(np.floor((top - sum(origins)) / unit + 1e-9))) + 1
        stem = accuracy.pieces[0]
        first = np.full((*stem.table.shape, n), _NEVER)
        for index in np.ndindex(stem.table.shape):
            if steps[0][index] < n:
                first[(*index, steps[0][index])] = stem.table[index]
        values = [first]
        for piece, step in zip(accuracy.pieces[1:], steps[1:], strict=True):
            values.append(_advance(values[-1], piece.table, step))
        return cls(pieces=accuracy.pieces, steps=steps, values=values)

    def best(self) -> Array:
        """Returns the best accuracy of whole networks by cost in steps."""
        return np.asarray(self.values[-1].max(axis=(0, 1)))

    def walk_back(self, step: int) -> Codes:
        """Returns a network with the best accuracy at a cost: shape (genes,)."""
        genes = 1 + max(max(piece.columns) for piece in self.pieces)
        row = np.zeros(genes, dtype=np.int64)
        last = self.values[-1][:, :, step]
        resolution, width = np.unravel_index(int(last.argmax()), last.shape)
        row[self.pieces[0].columns[0]] = resolution
        for i in range(len(self.pieces) - 1, 0, -1):
            piece, before = self.pieces[i], self.values[i - 1][resolution]
            left = step - self.steps[i][resolution][:, width]
            entering = np.indices(left.shape)[0]
            reached = np.where(left >= 0, before[entering, np.maximum(left, 0)], _NEVER)
            choice = np.unravel_index(int((reached + piece.table[resolution][:, width]).argmax()), left.shape)
            for column, index in zip(piece.columns[2:], (width, *choice[1:]), strict=True):
                row[column] = index
            step, width = int(left[choice]), choice[0]
        row[self.pieces[0].columns[1]] = width
        return row


def _advance(before: Array, table: Array, steps: npt.NDArray[np.int64]) -> Array:
    n = before.shape[2]
    after = np.full((table.shape[0], table.shape[2], n), _NEVER)
    for index in np.ndindex(table.shape):
        resolution, entering, leaving = index[:3]
        shift = int(steps[index])
        if shift < n:
            reached = after[resolution, leaving, shift:]
            np.maximum(reached, before[resolution, entering, : n - shift] + table[index], out=reached)
    return after


def _columns(space: SearchSpace) -> list[list[int]]:
    """Returns the genes of each piece, from stem to head."""
    n = len(space.stages)
    names = [["resolution", "width.0"]]
    for i in range(n):
        own = [f"{field}.{i}" for field in ("depth", "kernel_size", "expand_ratio")]
        names.append(["resolution", f"width.{i}", f"width.{i + 1}", *own])
    names.append(["resolution", f"width.{n}", f"width.{n + 1}"])
    return [[space.genes.index(name) for name in piece] for piece in names]


def _indicators(space: SearchSpace, columns: list[int], codes: Codes) -> Array:
    """Returns one column for each choice of each gene, and for each pair of choices of two genes."""
    single = [
        (codes[:, [column]] == np.arange(space.cardinalities[column])).astype(np.float64)
        for column in columns
        if space.cardinalities[column] > 1
    ]
    pairs = [
        (a[:, :, None] * b[:, None, :]).reshape(len(codes), -1) for i, a in enumerate(single) for b in single[i + 1 :]
    ]
    return np.concatenate([np.zeros((len(codes), 0)), *single, *pairs], axis=1)

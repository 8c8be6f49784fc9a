"""Metrics that are sums over layers, evaluated for whole populations with a few table look-ups a sub-network.

MACs, parameters and latency are sums over a plan's layers. What a stage contributes depends on seven choices at most
(resolution, width before, width, depth, kernel size, expansion ratio), so it is summed beforehand; a population is then
scored by one gather a stage:

>>> macs = AdditiveMetric(space, count_macs)
>>> macs(space.sample(100_000, rng)).shape
(100000,)

Neighbouring stages share nothing but the resolution and one width, so the least and the greatest value of the whole
space are exact by dynamic programming over these two, however large the space:

>>> macs.minimum().value
203389568.0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, final

import numpy as np
import numpy.typing as npt

from nas2edge.plan import LayerSpec, head_layer, stage_layers, stem_layer
from nas2edge.space import Codes, SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extreme:
    """The least or greatest value that any sub-network of a space reaches.

    Args:
        value: The value.
        codes: One sub-network that reaches it: shape (1, genes).
    """

    value: float
    codes: Codes


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
        """Returns the metric of tables that were made otherwise, such as a weighted sum of two metrics' tables."""
        metric = cls.__new__(cls)
        metric._hold(tuple(pieces), genes)
        return metric

    def __call__(self, codes: Codes) -> npt.NDArray[np.float64]:
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


@final
class LookUp:
    """The values that pieces have for populations: one matrix product and one gather.

    Args:
        pieces: The pieces.
        genes: Number of genes of a sub-network.
    """

    def __init__(self, pieces: Sequence[Piece], *, genes: int) -> None:
        # Products of doubles are exact here (tables have far fewer than 2^53 entries) and much faster than of integers.
        self._strides = np.zeros((genes, len(pieces)))
        for i, piece in enumerate(pieces):
            self._strides[piece.columns, i] = piece.strides
        self._starts = np.cumsum([0, *(piece.table.size for piece in pieces[:-1])])
        self._values = np.concatenate([piece.table.ravel() for piece in pieces])

    def __call__(self, codes: Codes) -> npt.NDArray[np.float64]:
        """Returns the value of each piece: shape (n, pieces)."""
        return np.asarray(self._values[(codes @ self._strides).astype(np.int64) + self._starts])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """One part of an additive metric.

    Args:
        columns: The genes that it depends on: the resolution, the width that enters (but for the stem), the width that
            leaves, and then, for a stage, depth, kernel size and expansion ratio.
        strides: Turns these genes' codes into an index of the flattened table.
        table: The part's value; one axis for each of these genes.
    """

    columns: list[int]
    strides: Codes
    table: npt.NDArray[np.float64]

    def restricted(self, kept: Sequence[Sequence[int]]) -> Piece:
        """Returns the part for which each gene has one of its kept choices, given by their indices."""
        return make_piece(self.columns, self.table[np.ix_(*(kept[column] for column in self.columns))])

    def with_table(self, table: npt.NDArray[np.float64]) -> Piece:
        """Returns the piece with other values of the same genes."""
        return Piece(columns=self.columns, strides=self.strides, table=table)


Repeat = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]], npt.NDArray[np.float64]]
"""Value of a stage from that of its first block, of each further block, and the number of further blocks."""


def make_pieces(space: SearchSpace, value: Callable[[LayerSpec], float], *, repeat: Repeat) -> tuple[Piece, ...]:
    """Returns the tables of a space, from stem to head; `value` is called once per distinct layer."""
    cache: dict[str, float] = {}

    def cached(layer: LayerSpec) -> float:
        key = layer.key
        if key not in cache:
            cache[key] = float(value(layer))
        return cache[key]

    stages = (_stage_piece(space, i, cached, repeat) for i in range(len(space.stages)))
    return (_stem_piece(space, cached), *stages, _head_piece(space, cached))


def make_piece(columns: Sequence[int], table: npt.NDArray[np.float64]) -> Piece:
    """Returns the piece of a table that has one axis for each of the columns."""
    strides = np.array([int(np.prod(table.shape[i + 1 :])) for i in range(table.ndim)], dtype=np.int64)
    return Piece(columns=list(columns), strides=strides, table=np.ascontiguousarray(table))


def find_extreme(pieces: Sequence[Piece], join: np.ufunc, *, genes: int, sign: float) -> Codes:
    """Returns a sub-network at the least (sign 1) or greatest (-1) of the joined values: shape (1, genes).

    Exact for any `join` that never falls when one of its values rises. Dynamic programming: of all beginnings that
    share resolution and the width that they end with, only the best matters to what follows.
    """
    stem, *rest = pieces
    best = sign * stem.table
    rows = np.zeros((*best.shape, genes), dtype=np.int64)
    rows[..., stem.columns[0]], rows[..., stem.columns[1]] = np.indices(best.shape)
    for piece in rest:
        best, rows = _extend(best, rows, piece, join, sign=sign)
    return rows.reshape(-1, genes)[[int(best.argmin())]]


def _extend(
    best: npt.NDArray[np.float64], rows: Codes, piece: Piece, join: np.ufunc, *, sign: float
) -> tuple[npt.NDArray[np.float64], Codes]:
    """Takes the least totals by (resolution, width that enters) past one piece, to (resolution, width that leaves)."""
    n_res, n_in, n_out, *others = piece.table.shape
    total = join(best.reshape(n_res, n_in, 1, 1), sign * piece.table.reshape(n_res, n_in, n_out, -1))
    total = np.moveaxis(total, 2, 1).reshape(n_res, n_out, -1)
    chosen = total.argmin(axis=2)
    entering, *inner = np.unravel_index(chosen, (n_in, *others))
    resolution, leaving = np.indices(chosen.shape)
    extended = rows[resolution, entering]
    for column, index in zip(piece.columns[2:], (leaving, *inner), strict=True):
        extended[..., column] = index
    return total.min(axis=2), extended


def _stem_piece(space: SearchSpace, value: Callable[[LayerSpec], float]) -> Piece:
    def total(resolution: int, width: int) -> float:
        return value(stem_layer(space, resolution=resolution, out_chs=width))

    genes = ["resolution", "width.0"]
    return _piece(space, genes, _values(space, genes, total))


def _stage_piece(space: SearchSpace, i: int, value: Callable[[LayerSpec], float], repeat: Repeat) -> Piece:
    side = _sides(space, before_stage=i)
    depths = space.stages[i].depth

    def ends(resolution: int, in_chs: int, width: int, kernel_size: int, expand_ratio: int) -> tuple[float, float]:
        layers = stage_layers(
            space,
            i,
            hw_in=side[resolution],
            in_chs=in_chs,
            width=width,
            depth=min(depths[-1], 2),
            kernel_size=kernel_size,
            expand_ratio=expand_ratio,
        )
        return value(layers[0]), value(layers[-1])

    genes = ["resolution", f"width.{i}", f"width.{i + 1}", f"kernel_size.{i}", f"expand_ratio.{i}"]
    first, again = np.moveaxis(_values(space, genes, ends), -1, 0)
    # Blocks after the second are the second again; depth becomes the axis after the widths.
    table = repeat(first[..., None], again[..., None], np.array(depths) - 1)
    return _piece(space, [*genes[:3], f"depth.{i}", *genes[3:]], np.moveaxis(table, -1, 3))


def _head_piece(space: SearchSpace, value: Callable[[LayerSpec], float]) -> Piece:
    n = len(space.stages)
    side = _sides(space, before_stage=n)

    def total(resolution: int, in_chs: int, width: int) -> float:
        return value(head_layer(space, hw_in=side[resolution], in_chs=in_chs, width=width))

    genes = ["resolution", f"width.{n}", f"width.{n + 1}"]
    return _piece(space, genes, _values(space, genes, total))


def _values(space: SearchSpace, genes: list[str], value: Callable[..., Any]) -> npt.NDArray[np.float64]:
    """Calls `value` for every combination of the genes' choices: one axis a gene, and one for a tuple's entries."""
    choices = [space.choices[space.genes.index(gene)] for gene in genes]
    flat = np.array([value(*values) for values in product(*choices)])
    return flat.reshape(*(len(values) for values in choices), *flat.shape[1:])


def _piece(space: SearchSpace, genes: list[str], table: npt.NDArray[np.float64]) -> Piece:
    return make_piece([space.genes.index(gene) for gene in genes], table)


def _sum_of_blocks(
    first: npt.NDArray[np.float64], again: npt.NDArray[np.float64], further: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    return first + further * again


def _sides(space: SearchSpace, *, before_stage: int) -> dict[int, int]:
    strides = [space.stem_stride, *(stage.stride for stage in space.stages[:before_stage])]
    sides = {}
    for resolution in space.resolution:
        side = resolution
        for stride in strides:
            side = -(-side // stride)
        sides[resolution] = side
    return sides

"""What a network's layers need, as small tables: the common ground of metrics that are sums or maxima over layers.

A network is a stem, its stages and a head. What one of these *pieces* contributes depends on seven choices at most
(resolution, width before, width, depth, kernel size, expansion ratio), so it is worked out beforehand for all of them.
Neighbouring pieces share nothing but the resolution and one width; `find_extreme` makes use of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, final

import numpy as np
import numpy.typing as npt

from nas2edge.plan import LayerSpec, head_layer, stage_layers, stem_layer
from nas2edge.space import Codes, SearchSpace

Array = npt.NDArray[np.float64]

Repeat = Callable[[Array, Array, npt.NDArray[np.int64]], Array]
"""Value of a stage from that of its first block, of each further block, and the number of further blocks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extreme:
    """The least or greatest value that any sub-network of a space reaches.

    Args:
        value: The value.
        codes: One sub-network that reaches it: shape (1, genes).
    """

    value: float
    codes: Codes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """One part of a network.

    Args:
        columns: The genes that it depends on: the resolution, the width that enters (but for the stem), the width that
            leaves, and then, for a stage, depth, kernel size and expansion ratio.
        strides: Turns these genes' codes into an index of the flattened table.
        table: The part's value; one axis for each of these genes.
    """

    columns: list[int]
    strides: Codes
    table: Array

    def restricted(self, kept: Sequence[Sequence[int]]) -> Piece:
        """Returns the part for which each gene has one of its kept choices, given by their indices."""
        return make_piece(self.columns, self.table[np.ix_(*(kept[column] for column in self.columns))])

    def with_table(self, table: Array) -> Piece:
        """Returns the piece with other values of the same genes."""
        return Piece(columns=self.columns, strides=self.strides, table=table)


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

    def __call__(self, codes: Codes) -> Array:
        """Returns the value of each piece: shape (n, pieces)."""
        return np.asarray(self._values[(codes @ self._strides).astype(np.int64) + self._starts])


def make_pieces(space: SearchSpace, value: Callable[[LayerSpec], float], *, repeat: Repeat) -> tuple[Piece, ...]:
    """Returns the tables of a space, from stem to head; `value` is called once per distinct layer."""
    skeleton = _skeleton(space)
    values = np.array([float(value(layer)) for layer in skeleton.layers])
    stem, *stages, head = skeleton.blocks
    pieces = [_piece(space, ["resolution", "width.0"], values[stem])]
    for i, (stage, blocks) in enumerate(zip(space.stages, stages, strict=True)):
        first, again = values[blocks[..., 0]], values[blocks[..., 1]]
        # Blocks after the second are the second again; depth becomes the axis after the widths.
        table = repeat(first[..., None], again[..., None], np.array(stage.depth) - 1)
        genes = ["resolution", f"width.{i}", f"width.{i + 1}", f"depth.{i}", f"kernel_size.{i}", f"expand_ratio.{i}"]
        pieces.append(_piece(space, genes, np.moveaxis(table, -1, 3)))
    n = len(space.stages)
    return (*pieces, _piece(space, ["resolution", f"width.{n}", f"width.{n + 1}"], values[head]))


def make_piece(columns: Sequence[int], table: Array) -> Piece:
    """Returns the piece of a table that has one axis for each of the columns."""
    strides = np.array([int(np.prod(table.shape[i + 1 :])) for i in range(table.ndim)], dtype=np.int64)
    return Piece(columns=list(columns), strides=strides, table=np.ascontiguousarray(table))


def find_extreme(pieces: Sequence[Piece], join: np.ufunc, *, genes: int, sign: float) -> Codes:
    """Returns a sub-network at the least (sign 1) or greatest (-1) of the joined values: shape (1, genes).

    Exact for any `join` that never falls when one of its values rises. Dynamic programming: of all beginnings that
    share resolution and the width that they end with, only the best matters to what follows. Values are multiplied by
    the sign before they are joined.
    """
    stem, *rest = pieces
    best = sign * stem.table
    rows = np.zeros((*best.shape, genes), dtype=np.int64)
    rows[..., stem.columns[0]], rows[..., stem.columns[1]] = np.indices(best.shape)
    for piece in rest:
        best, rows = _extend(best, rows, piece, join, sign=sign)
    return rows.reshape(-1, genes)[[int(best.argmin())]]


def _extend(best: Array, rows: Codes, piece: Piece, join: np.ufunc, *, sign: float) -> tuple[Array, Codes]:
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Skeleton:
    """The distinct layers of a space, and which of them each piece has.

    Args:
        layers: The layers.
        blocks: Of each piece, indices of layers: one axis for each gene but the depth, and for a stage one more for
            the first block and the further ones.
    """

    layers: tuple[LayerSpec, ...]
    blocks: tuple[npt.NDArray[np.int64], ...]


@lru_cache(maxsize=8)
def _skeleton(space: SearchSpace) -> _Skeleton:
    # This takes far longer than any sum over it, and serves all metrics of a space.
    layers: dict[str, LayerSpec] = {}
    places: dict[str, int] = {}

    def place(layer: LayerSpec) -> int:
        key = layer.key
        layers.setdefault(key, layer)
        return places.setdefault(key, len(places))

    def stem(resolution: int, width: int) -> int:
        return place(stem_layer(space, resolution=resolution, out_chs=width))

    n = len(space.stages)
    stages = [_stage_blocks(space, i, place) for i in range(n)]
    side = _sides(space, before_stage=n)

    def head(resolution: int, in_chs: int, width: int) -> int:
        return place(head_layer(space, hw_in=side[resolution], in_chs=in_chs, width=width))

    blocks = (
        _tabulate(space, ["resolution", "width.0"], stem),
        *stages,
        _tabulate(space, ["resolution", f"width.{n}", f"width.{n + 1}"], head),
    )
    return _Skeleton(layers=tuple(layers.values()), blocks=blocks)


def _stage_blocks(space: SearchSpace, i: int, place: Callable[[LayerSpec], int]) -> npt.NDArray[np.int64]:
    side = _sides(space, before_stage=i)
    depth = min(space.stages[i].depth[-1], 2)

    def ends(resolution: int, in_chs: int, width: int, kernel_size: int, expand_ratio: int) -> tuple[int, int]:
        layers = stage_layers(
            space,
            i,
            hw_in=side[resolution],
            in_chs=in_chs,
            width=width,
            depth=depth,
            kernel_size=kernel_size,
            expand_ratio=expand_ratio,
        )
        return place(layers[0]), place(layers[-1])

    genes = ["resolution", f"width.{i}", f"width.{i + 1}", f"kernel_size.{i}", f"expand_ratio.{i}"]
    return _tabulate(space, genes, ends)


def _tabulate(space: SearchSpace, genes: list[str], value: Callable[..., Any]) -> npt.NDArray[np.int64]:
    """Calls `value` for every combination of the genes' choices: one axis a gene, and one for a tuple's entries."""
    choices = [space.choices[space.genes.index(gene)] for gene in genes]
    flat = np.array([value(*values) for values in product(*choices)], dtype=np.int64)
    return flat.reshape(*(len(values) for values in choices), *flat.shape[1:])


def _piece(space: SearchSpace, genes: list[str], table: Array) -> Piece:
    return make_piece([space.genes.index(gene) for gene in genes], table)


def _sides(space: SearchSpace, *, before_stage: int) -> dict[int, int]:
    strides = [space.stem_stride, *(stage.stride for stage in space.stages[:before_stage])]
    sides = {}
    for resolution in space.resolution:
        side = resolution
        for stride in strides:
            side = -(-side // stride)
        sides[resolution] = side
    return sides

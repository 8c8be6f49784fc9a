"""What a table is measured on: every block, every border between blocks, and whole networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.budget import BudgetSampler
from nas2edge.costs import count_macs, count_params, peak_activations
from nas2edge.latency.borders import Shape, border_shapes, shape_after, shape_before
from nas2edge.latency.protocol import Item, Measurement
from nas2edge.latency.table import MEASURED, TableRow
from nas2edge.plan import LayerSpec, plan, unique_layers
from nas2edge.space import Codes, SearchSpace, SubnetConfig

_NET_SHARE = 2.0
_BORDER_SHARE = 0.5
_VALUE_BYTES = 4
_LEAST_SHARE = 0.2  # a row keeps at least this share of its item's time, however large the borders' part
_STREAMED_MB = 8.0  # items that need more than this depend on the memory that neighbours use too


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A whole network to measure: its item, and the space that it was drawn from."""

    space: str
    item: Item


def unique_blocks(spaces: Iterable[SearchSpace]) -> dict[str, LayerSpec]:
    """Returns the distinct blocks of all spaces, by key."""
    return {layer.key: layer for space in spaces for layer in unique_layers(space)}


def block_items(layers: Iterable[LayerSpec], *, bordered: bool = True) -> list[Item]:
    """Returns an item a block; its key is the item's id. Older tables have blocks without borders."""
    return [Item(id=layer.key, layers=(layer,), streams=_streams([layer]), bordered=bordered) for layer in layers]


def border_items(layers: Iterable[LayerSpec]) -> list[Item]:
    """Returns an item a shape that any of the blocks begins or ends with."""
    return [Item(id=border_id(shape), layers=(), share=_BORDER_SHARE, border=shape) for shape in border_shapes(layers)]


def border_id(shape: Shape) -> str:
    """Returns the id of a border's item."""
    return f"border hw={shape[0]} chs={shape[1]}"


def network_item(name: str, layers: Sequence[LayerSpec]) -> Item:
    """Returns the item of a whole plan."""
    return Item(id=name, layers=tuple(layers), share=_NET_SHARE, streams=_streams(layers))


def draw_nets(space: SearchSpace, n: int, *, seed: int) -> Iterator[Net]:
    """Draws n networks of a space, uniform over MACs.

    Random ones are nearly all of one size, from which no slope can be told: a fit to them was 5 % off at either end.
    """
    rng = np.random.default_rng([seed, 1])
    found: dict[str, SubnetConfig] = {}
    for subnet in space.decode(uniform_over_macs(space, n, rng=rng)):
        found.setdefault(subnet.id, subnet)
    while len(found) < min(n, space.size):
        (subnet,) = space.decode(space.sample(1, rng))
        found.setdefault(subnet.id, subnet)
    order = rng.permutation(len(found))
    subnets = list(found.values())
    for place in order.tolist():
        item = network_item(f"net {space.name} {subnets[place].id}", plan(space, subnets[place]))
        yield Net(space=space.name, item=item)


def uniform_over_macs(space: SearchSpace, n: int, *, rng: np.random.Generator) -> Codes:
    """Draws n networks at evenly spaced numbers of multiply-accumulates: shape (n, genes)."""
    if n == 0:
        return space.sample(0, rng)
    sampler = BudgetSampler(space, AdditiveMetric(space, count_macs), bins=n)
    bins = np.flatnonzero(sampler.prior > 0)
    chosen = bins[np.linspace(0, len(bins) - 1, n).round().astype(int)]
    return np.concatenate([sampler.draw(bin=int(one), n=1, rng=rng) for one in chosen])


def borders_ms(layer: LayerSpec, found: Mapping[str, Measurement]) -> float:
    """Returns the time of a block's two ends, which is to be taken off."""
    return sum(found[border_id(shape)].p50 for shape in shapes_of(layer)) / 2


def shapes_of(layer: LayerSpec) -> list[Shape]:
    """Returns the shapes that a block begins and ends with, as far as it has borders there."""
    return [shape for shape in (shape_before(layer), shape_after(layer)) if shape is not None]


def _streams(layers: Sequence[LayerSpec]) -> bool:
    values = sum(map(count_params, layers)) + max(map(peak_activations, layers))
    return values * _VALUE_BYTES > _STREAMED_MB * 1e6


def rows_from(layers: Mapping[str, LayerSpec], found: Mapping[str, Measurement]) -> tuple[TableRow, ...]:
    """Returns the rows of measured blocks, the borders' part taken off."""
    return tuple(_row(layer, found) for layer in layers.values())


def _row(layer: LayerSpec, found: Mapping[str, Measurement]) -> TableRow:
    measured = found[layer.key]
    borders = [found[border_id(shape)] for shape in shapes_of(layer)]
    off = min(borders_ms(layer, found), (1.0 - _LEAST_SHARE) * measured.min)
    # Errors of the block and of its borders are independent.
    errors = [measured.rel_sigma * measured.p50, *(border.rel_sigma * border.p50 / 2 for border in borders)]
    return TableRow(
        layer=replace(layer, name=""),
        p50=measured.p50 - off,
        status=MEASURED,
        rel_sigma=float(np.sqrt(np.square(errors).sum())) / (measured.p50 - off),
        n=measured.n,
        p10=measured.p10 - off,
        p90=measured.p90 - off,
        min=measured.min - off,
        std=measured.std,
    )

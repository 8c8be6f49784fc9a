"""Where a network's milliseconds go: every block of many plans in one device's latency table.

>>> plans = [plan(space, subnet)]
>>> layers, members = distinct_blocks(plans)
>>> split = split_blocks(plans, table)
>>> [(layers[i].name, split.blocks[i].ms) for i in members[0]]
[('stem', 0.056), ('stages.0.blocks.0', 0.104), ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas2edge.latency.table import LatencyParts, LatencyTable
from nas2edge.plan import LayerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """One block in a table.

    Args:
        ms: Milliseconds of its row.
        rel_sigma: One-sigma relative error of its row.
        status: "measured", "interpolated", "transferred" or "estimated".
    """

    ms: float
    rel_sigma: float
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSplit:
    """The latency of each plan as a sum: its blocks, and what networks cost beyond them.

    Args:
        blocks: What each distinct block costs alone, in the order of `distinct_blocks`.
        slopes: By plan, the factor on its blocks.
        parts: By plan, the sum of its blocks times that factor, and the other parts of its latency.
    """

    blocks: tuple[BlockTime, ...]
    slopes: tuple[float, ...]
    parts: tuple[LatencyParts, ...]


def distinct_blocks(plans: Sequence[Sequence[LayerSpec]]) -> tuple[tuple[LayerSpec, ...], list[list[int]]]:
    """Returns the blocks of all plans, each name and shape once, and for each plan the indices of its blocks."""
    index: dict[LayerSpec, int] = {}
    members = [[index.setdefault(layer, len(index)) for layer in layers] for layers in plans]
    return tuple(index), members


def split_blocks(plans: Sequence[Sequence[LayerSpec]], table: LatencyTable) -> BlockSplit:
    """Looks every block of the plans up; the parts of a plan add up to `table.estimate` of it.

    Raises:
        TableError: Blocks have no row and nothing to estimate them from; names them.
    """
    layers, members = distinct_blocks(plans)
    rows = [table.row(layer) for layer in layers]
    parts = tuple(table.parts_ms(plan) for plan in plans)
    return BlockSplit(
        blocks=tuple(BlockTime(ms=row.ms, rel_sigma=row.rel_sigma, status=row.status) for row in rows),
        slopes=tuple(part.blocks / sum(rows[i].ms for i in of) for part, of in zip(parts, members, strict=True)),
        parts=parts,
    )


def describe_block(layer: LayerSpec) -> str:
    """Writes a block in a few words: "3×3 /2, 24→144→32 at 72², SE" has stride 2 and a map of 72 by 72 at its input."""
    kernel = f"{layer.kernel_size}×{layer.kernel_size}"
    stride = f" /{layer.stride}" if layer.stride > 1 else ""
    if layer.op == "first_conv":
        return f"conv {kernel}{stride}, {layer.in_chs}→{layer.out_chs} at {layer.hw_in}²"
    if layer.op == "mbpool":
        return f"pool + classifier, {layer.in_chs}→{layer.mid_chs}→{layer.out_chs}→{layer.classes}"
    se = ", SE" if layer.se_chs else ""
    return f"{kernel}{stride}, {layer.in_chs}→{layer.mid_chs}→{layer.out_chs} at {layer.hw_in}²{se}"

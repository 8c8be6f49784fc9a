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

from nas2edge.latency.table import LatencyTable
from nas2edge.plan import LayerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """One block's part of a whole network's latency.

    Args:
        ms: Milliseconds: its row times the slope of the table's calibration.
        rel_sigma: One-sigma relative error of its row.
        status: "measured", "interpolated", "transferred" or "estimated".
    """

    ms: float
    rel_sigma: float
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSplit:
    """The latency of each plan as a sum: its blocks, the cost of a run, and weights that spill from the cache.

    Args:
        blocks: What each distinct block costs, in the order of `distinct_blocks`.
        overhead_ms: What every run costs whatever the network.
        spill_ms: By plan, what weights beyond the last-level cache cost.
    """

    blocks: tuple[BlockTime, ...]
    overhead_ms: float
    spill_ms: tuple[float, ...]


def distinct_blocks(plans: Sequence[Sequence[LayerSpec]]) -> tuple[tuple[LayerSpec, ...], list[list[int]]]:
    """Returns the blocks of all plans, each name and shape once, and for each plan the indices of its blocks."""
    index: dict[LayerSpec, int] = {}
    members = [[index.setdefault(layer, len(index)) for layer in layers] for layers in plans]
    return tuple(index), members


def split_blocks(plans: Sequence[Sequence[LayerSpec]], table: LatencyTable) -> BlockSplit:
    """Looks every block of the plans up; blocks, overhead and spill of a plan add up to `table.estimate` of it.

    Raises:
        TableError: Blocks have no row and nothing to estimate them from; names them.
    """
    layers, _ = distinct_blocks(plans)
    # Where networks of either kind are among them, the lesser numbers are common to all.
    kinds = [kind for kind in (table.calibration, table.calibration.large) if kind is not None]
    used = [kind for kind in kinds if any(table.calibration_of(plan) is kind for plan in plans)]
    slope, overhead = min(kind.slope for kind in used), min(kind.overhead_ms for kind in used)
    rows = [table.row(layer) for layer in layers]
    ms_of = {layer: slope * row.ms for layer, row in zip(layers, rows, strict=True)}
    return BlockSplit(
        blocks=tuple(BlockTime(ms=slope * row.ms, rel_sigma=row.rel_sigma, status=row.status) for row in rows),
        overhead_ms=overhead,
        spill_ms=tuple(
            max(0.0, table.estimate(plan).ms - overhead - sum(ms_of[layer] for layer in plan)) for plan in plans
        ),
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

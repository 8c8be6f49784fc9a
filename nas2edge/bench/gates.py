"""What a check consists of: one gate a figure, each with its verdict, its limit, and its figures in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nas2edge.bench.artefact import Artefact
from nas2edge.bench.footprint import UNITS, Footprint, format_figure
from nas2edge.bench.gate import FAILED, INCONCLUSIVE, PASSED, Decision
from nas2edge.bench.predicted import layers_of
from nas2edge.errors import InputError
from nas2edge.latency.table import LatencyTable
from nas2edge.plan import LayerSpec
from nas2edge.units import format_latency

SKIPPED = "skipped"
MEASURED_LATENCY, ABSOLUTE_LATENCY = "measured latency", "absolute latency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One thing that was checked.

    Args:
        name: What.
        verdict: "passed", "failed", "inconclusive" or "skipped".
        hard: Whether it counts for the verdict of the whole.
        detail: The figures, in words.
        old: The older figure; None if there is none.
        new: The new figure.
        limit: The greatest allowed.
        decision: Of a measured gate.
    """

    name: str
    verdict: str
    hard: bool
    detail: str
    old: float | None = None
    new: float | None = None
    limit: float | None = None
    decision: Decision | None = None


def footprint_gates(new: Footprint, old: Footprint | None, *, max_growth: float) -> Iterator[Gate]:
    """Compares costs that need no clock; what either file does not say is left out.

    Args:
        new: Of the new network.
        old: Of the older one; None if there is none.
        max_growth: Greatest growth allowed, as a fraction; infinite for any.
    """
    allowed = "any growth allowed" if max_growth == math.inf else f"at most {max_growth:+.1%} allowed"
    for name, label in UNITS.items():
        before, after = getattr(old, name, None), getattr(new, name)
        if before is None or after is None:
            continue
        limit = math.inf if max_growth == math.inf else before * (1.0 + max_growth)
        shown = f"{format_figure(name, before)} to {format_figure(name, after)}"
        change = f" ({after / before - 1.0:+.1%})" if before else ""
        yield Gate(
            name=label,
            verdict=PASSED if after <= limit else FAILED,
            hard=True,
            detail=f"{shown}{change}, {allowed}",
            old=before,
            new=after,
            limit=limit,
        )


def table_gates(
    new: Artefact,
    old: Sequence[LayerSpec] | None,
    table: LatencyTable,
    *,
    max_slowdown: float,
    max_latency_ms: float | None,
) -> Iterator[Gate]:
    """Compares the latencies that a table predicts with each other and with a limit.

    Args:
        new: The new network.
        old: The blocks of the older one; None if there is none, or it does not say.
        table: Of the target device.
        max_slowdown: Greatest slowdown allowed, as a fraction.
        max_latency_ms: Greatest latency allowed; None for any.

    Raises:
        InputError: The new network does not say which sub-network it is.
        TableError: The table has no answer for a block.
    """
    layers = layers_of(new)
    if layers is None:
        raise InputError(
            f"{new.name} does not say which sub-network it is, so {table.device.name}'s table cannot "
            "predict its latency; give a bundle or an ONNX file of nas2edge export"
        )
    found = table.estimate(layers)
    of = f"by the {found.kind} table {table.device.name}"
    name = f"table latency ({table.device.name})"
    if old is not None:
        old_ms = table.estimate(old).ms
        limit = old_ms * (1.0 + max_slowdown)
        detail = (
            f"{format_latency(old_ms)} to {format_latency(found.ms)} ({found.ms / old_ms - 1.0:+.1%}) {of}, at most "
            f"{max_slowdown:+.1%} allowed"
        )
        verdict = PASSED if found.ms <= limit else FAILED
        yield Gate(name=name, verdict=verdict, hard=True, detail=detail, old=old_ms, new=found.ms, limit=limit)
    if max_latency_ms is not None:
        verdict = PASSED if found.ms <= max_latency_ms else FAILED
        detail = (
            f"{format_latency(found.ms)} +- {format_latency(found.sigma_ms)} {of}, at most "
            f"{format_latency(max_latency_ms)} allowed"
        )
        yield Gate(
            name=f"{name}, absolute",
            verdict=verdict,
            hard=True,
            detail=detail,
            new=found.ms,
            limit=max_latency_ms,
        )


def measured_gate(decision: Decision, max_slowdown: float, *, hard: bool) -> Gate:
    """Makes a gate of a decision on the ratio of two networks."""
    found = decision.comparison
    figures = "" if found is None else (
        f"{found.ratio.estimate - 1.0:+.1%} [{found.ratio.low - 1.0:+.1%}, {found.ratio.high - 1.0:+.1%}], at most "
        f"{max_slowdown:+.1%} allowed; "
    )  # fmt: skip
    return Gate(
        name=MEASURED_LATENCY,
        verdict=decision.verdict,
        hard=hard,
        detail=figures + decision.reason + _advice(decision),
        old=1.0,
        new=None if found is None else found.ratio.estimate,
        limit=1.0 + max_slowdown,
        decision=decision,
    )


def absolute_gate(decision: Decision, limit_ms: float, *, hard: bool) -> Gate:
    """Makes a gate of a decision on the ratio of one network and a limit in milliseconds."""
    found = decision.comparison
    estimate, low, high = (
        (None, None, None)
        if found is None
        else (limit_ms * value for value in (found.ratio.estimate, found.ratio.low, found.ratio.high))
    )
    figures = "" if estimate is None or low is None or high is None else (
        f"{format_latency(estimate)} [{format_latency(low)}, {format_latency(high)}], at most "
        f"{format_latency(limit_ms)} allowed; "
    )  # fmt: skip
    return Gate(
        name=ABSOLUTE_LATENCY,
        verdict=decision.verdict,
        hard=hard,
        detail=figures + decision.reason + _advice(decision),
        new=estimate,
        limit=limit_ms,
        decision=decision,
    )


def _advice(decision: Decision) -> str:
    return "; a longer --budget or a quieter machine decides" if decision.verdict == INCONCLUSIVE else ""


def skipped_gate(reason: str) -> Gate:
    """Says why nothing was timed."""
    return Gate(name=MEASURED_LATENCY, verdict=SKIPPED, hard=False, detail=reason)

"""What check shows while it runs, and its JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nas2edge.bench.check import Report
from nas2edge.bench.gate import FAILED, INCONCLUSIVE, PASSED, Comparison, Decision
from nas2edge.bench.gates import Gate

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {
    PASSED: "[green]ok[/]  ",
    FAILED: "[red]FAIL[/]",
    INCONCLUSIVE: "[yellow]?[/]   ",
    "skipped": "[yellow]--[/]  ",
}


def render_gate(console: Console, gate: Gate) -> None:
    """Prints one gate as it ends."""
    from rich.markup import escape

    soft = "" if gate.hard or gate.verdict == "skipped" else " (advisory)"
    console.print(f"  {_MARKS[gate.verdict]} {escape(gate.name + soft)}: {escape(gate.detail)}")
    decision = gate.decision
    if decision is not None and decision.comparison is not None:
        control = decision.comparison.control
        confirmed = decision.confirmation
        again = "" if confirmed is None else (
            f"; rerun {confirmed.ratio.estimate - 1.0:+.1%} [{confirmed.ratio.low - 1.0:+.1%}, "
            f"{confirmed.ratio.high - 1.0:+.1%}]"
        )  # fmt: skip
        console.print(
            f"       A/A control {control.estimate - 1.0:+.1%} [{control.low - 1.0:+.1%}, {control.high - 1.0:+.1%}]"
            f"{again}; {len(decision.rounds)} rounds, {decision.seconds:.0f} s",
            markup=False,
        )


def render_notes(console: Console, report: Report) -> None:
    """Prints what a reader must know."""
    for note in report.notes:
        console.print(f"  note: {note}", markup=False)
    console.print(f"{report.verdict}", markup=False)


@contextmanager
def check_progress(budget_s: float) -> Iterator[Callable[[Comparison, bool], None]]:
    """Shows the interval as it narrows, on stderr."""
    from rich.console import Console

    with Console(stderr=True, highlight=False).status("comparing costs") as status:

        def show(found: Comparison, confirming: bool) -> None:
            what = "rerun" if confirming else "timing"
            ratio = found.ratio
            status.update(
                f"{what}: {ratio.estimate - 1.0:+.1%} [{ratio.low - 1.0:+.1%}, {ratio.high - 1.0:+.1%}] after "
                f"{found.rounds} rounds, budget {budget_s:g} s".replace("[", "\\[")
            )

        yield show


def report_dict(report: Report, *, new: str, old: str | None) -> dict[str, Any]:
    """Returns the JSON form of a report."""
    return {
        "format": "nas2edge.check",
        "version": 1,
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "new": {"artefact": new, "footprint": report.new.to_dict()},
        "baseline": None if report.old is None else {"artefact": old, "footprint": report.old.to_dict()},
        "gates": [_gate_dict(gate) for gate in report.gates],
        "notes": list(report.notes),
    }


def _gate_dict(gate: Gate) -> dict[str, Any]:
    return {
        "name": gate.name,
        "verdict": gate.verdict,
        "hard": gate.hard,
        "detail": gate.detail,
        "old": gate.old,
        "new": gate.new,
        "limit": gate.limit if gate.limit is not None and gate.limit < float("inf") else None,
        "measurement": None if gate.decision is None else _decision_dict(gate.decision),
    }


def _decision_dict(decision: Decision) -> dict[str, Any]:
    return {
        "reason": decision.reason,
        "seconds": round(decision.seconds, 3),
        "rounds": len(decision.rounds),
        "comparison": _comparison_dict(decision.comparison),
        "confirmation": _comparison_dict(decision.confirmation),
    }


def _comparison_dict(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    intervals = {"ratio": found.ratio, "control": found.control}
    return {
        "rounds": found.rounds,
        **{name: {"estimate": each.estimate, "low": each.low, "high": each.high} for name, each in intervals.items()},
    }

"""A check's report as Markdown with a chart in plain text: for the step summary of a CI run, or a merge request."""

from __future__ import annotations

from collections.abc import Sequence

from nas2edge.bench.check import Report
from nas2edge.bench.gate import FAILED, INCONCLUSIVE, PASSED, Comparison
from nas2edge.bench.gates import Gate
from nas2edge.bench.stats import Interval

_MARKS = {PASSED: "✅ passed", FAILED: "❌ failed", INCONCLUSIVE: "⚠️ inconclusive", "skipped": "– skipped"}
_WIDTH = 61


def report_markdown(report: Report, *, new: str, old: str | None) -> str:
    """Returns a section with the verdict, a table of the gates, and a chart for each that was measured.

    Args:
        report: The report.
        new: Name of the new network.
        old: Name of what it was compared with; None if there was nothing.
    """
    against = f" against `{_code(old)}`" if old else ""
    lines = [f"### {_MARKS[report.verdict]}: `{_code(new)}`{against}", ""]
    lines += ["| gate | verdict | figures |", "|---|---|---|"]
    for gate in report.gates:
        soft = "" if gate.hard or gate.verdict == "skipped" else " (advisory)"
        lines.append(f"| {_cell(gate.name)} | {_MARKS[gate.verdict]}{soft} | {_cell(gate.detail)} |")
    for gate in report.gates:
        if gate.decision is not None and gate.decision.comparison is not None:
            lines += ["", "```text", *_chart_of(gate), "```"]
    lines += [f"\n> {_cell(note)}" for note in report.notes]
    return "\n".join(lines) + "\n"


def chart(rows: Sequence[tuple[str, Interval]], *, limit: float) -> list[str]:
    """Draws intervals of ratios over one axis, in text: `o` is the estimate, `¦` the limit, `:` no difference.

    Args:
        rows: A label and an interval each.
        limit: The greatest ratio allowed.
    """
    ends = [value - 1.0 for _, found in rows for value in (found.low, found.high)]
    reach = max(0.01, 1.15 * max(abs(end) for end in [*ends, limit - 1.0] if abs(end) < 10.0))
    margin = max(len(label) for label, _ in rows) + 2

    def column(ratio: float) -> int:
        return max(0, min(_WIDTH - 1, round((ratio - 1.0 + reach) / (2.0 * reach) * (_WIDTH - 1))))

    lines = []
    for label, found in rows:
        cells = [" "] * _WIDTH
        cells[column(1.0)], cells[column(limit)] = ":", "¦"
        low, high = column(found.low), column(found.high)
        cells[low : high + 1] = ["-"] * (high + 1 - low)
        cells[low], cells[high] = "[", "]"
        cells[column(found.estimate)] = "o"
        shown = f"{found.estimate - 1.0:+.1%} [{found.low - 1.0:+.1%}, {found.high - 1.0:+.1%}]"
        lines.append(f"{label:<{margin}}{''.join(cells)}  {shown}")
    axis = [" "] * _WIDTH
    for ratio, text in ((1.0 - reach, f"{-reach:+.1%}"), (1.0, "0"), (1.0 + reach, f"{reach:+.1%}")):
        start = max(0, min(_WIDTH - len(text), column(ratio) - len(text) // 2))
        axis[start : start + len(text)] = list(text)
    return [*lines, f"{'':<{margin}}{''.join(axis)}   ¦ limit {limit - 1.0:+.1%}"]


def comparison_rows(found: Comparison, confirmation: Comparison | None, *, label: str) -> list[tuple[str, Interval]]:
    """Returns what `chart` draws of a decision: its ratio, the rerun's if there was one, and the control."""
    rows = [(label, found.ratio)]
    if confirmation is not None:
        rows.append(("rerun", confirmation.ratio))
    return [*rows, ("A/A control", found.control)]


def _chart_of(gate: Gate) -> list[str]:
    decision = gate.decision
    assert decision is not None and decision.comparison is not None
    relative = gate.old is not None
    label = "new / old" if relative else "latency / limit"
    limit = gate.limit if relative and gate.limit is not None else 1.0
    lines = chart(comparison_rows(decision.comparison, decision.confirmation, label=label), limit=limit)
    return [*lines, f"{len(decision.rounds)} rounds in {decision.seconds:.0f} s"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return text.replace("`", "'")

"""What an export found, stage by stage, as JSON and as a page to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from nas2edge.export.parity import ParityReport
from nas2edge.export.rows import Row

_NOTHING: Mapping[str, Any] = MappingProxyType({})
PASSED, FAILED, SKIPPED, UNCHECKED = "passed", "failed", "skipped", "unchecked"
"""Unchecked: made, but what it computes was not compared, since it does not run on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of an export and its verdict.

    Args:
        name: Such as "fold" or "onnx".
        verdict: "passed", "failed", "skipped" or "unchecked".
        summary: What was found, in a few words.
        seconds: How long it took.
        details: Figures for the JSON report.
    """

    name: str
    verdict: str
    summary: str
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


def parity_stage(
    name: str,
    report: ParityReport,
    *,
    seconds: float,
    note: str = "",
    faults: Sequence[str] = (),
    details: Mapping[str, Any] = _NOTHING,
) -> Stage:
    """Returns the stage of a comparison.

    Args:
        name: Of the stage.
        report: What the comparison found.
        seconds: How long it took.
        note: What was done, in a few words.
        faults: What else is wrong; any fails the stage.
        details: More for the JSON report.
    """
    said = f"max |d| {report.max_abs:.2g}, cosine {report.cosine:.7f}, top-1 agreement {report.top1_agreement:.2%}"
    if report.tolerance.max_abs is None:
        said = f"SQNR {report.sqnr_db:.1f} dB, cosine {report.cosine:.5f}, top-1 agreement {report.top1_agreement:.2%}"
    said += f" on {report.images} images"
    summary = "; ".join(part for part in (note, said, report.explain(), *faults) if part)
    verdict = PASSED if report.passed and not faults else FAILED
    found = {**report.to_dict(), **({"faults": list(faults)} if faults else {}), **details}
    return Stage(name=name, verdict=verdict, summary=summary, seconds=seconds, details=found)


def report_dict(
    stages: Sequence[Stage], *, subnet: Mapping[str, Any], accuracy: Mapping[str, float], rows: Sequence[Row]
) -> dict[str, Any]:
    """Returns report.json."""
    return {
        "format": "nas2edge.report",
        "version": 1,
        "passed": all(stage.verdict != FAILED for stage in stages),
        "subnet": dict(subnet),
        "accuracy": dict(accuracy),
        "made": [asdict(row) for row in rows],
        "stages": [
            {
                "name": stage.name,
                "verdict": stage.verdict,
                "summary": stage.summary,
                "details": dict(stage.details),
            }
            for stage in stages
        ],
    }

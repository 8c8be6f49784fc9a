"""What an export found, stage by stage, as JSON and as a page to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas2edge.export.parity import ParityReport

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


def parity_stage(name: str, report: ParityReport, *, seconds: float, note: str = "") -> Stage:
    """Returns the stage of a comparison."""
    said = f"max |d| {report.max_abs:.2g}, cosine {report.cosine:.7f}, top-1 agreement {report.top1_agreement:.2%}"
    said += f" on {report.images} images"
    summary = "; ".join(part for part in (note, said, report.explain()) if part)
    verdict = PASSED if report.passed else FAILED
    return Stage(name=name, verdict=verdict, summary=summary, seconds=seconds, details=report.to_dict())


def report_dict(stages: list[Stage], *, subnet: Mapping[str, Any], accuracy: Mapping[str, float]) -> dict[str, Any]:
    """Returns report.json."""
    return {
        "format": "nas2edge.report",
        "version": 1,
        "passed": all(stage.verdict != FAILED for stage in stages),
        "subnet": dict(subnet),
        "accuracy": dict(accuracy),
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


def report_markdown(title: str, facts: Mapping[str, str], stages: list[Stage], commands: Mapping[str, str]) -> str:
    """Returns report.md: what the network is, the verdict of each stage, and how to run it."""
    failed = [stage.name for stage in stages if stage.verdict == FAILED]
    lines = [f"# {title}", ""]
    lines += [f"**Failed at: {failed[0]}.** This is not the network that was searched.", ""] if failed else []
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| stage | verdict | what was found |", "|---|---|---|"]
    lines += [f"| {stage.name} | {stage.verdict} | {_cell(stage.summary)} |" for stage in stages]
    if commands:
        lines += ["", "## Run it", ""]
        for what, command in commands.items():
            lines += [f"{what}:", "", "```sh", command, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

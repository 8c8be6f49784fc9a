"""report.md: an export's report to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas2edge.export.rows import Row
from nas2edge.export.stages import FAILED, Stage


def report_markdown(
    title: str,
    facts: Mapping[str, str],
    stages: Sequence[Stage],
    commands: Mapping[str, str],
    rows: Sequence[Row] = (),
) -> str:
    """Returns report.md: what the network is, what was made of it, the verdict of each stage, and how to run it."""
    failed = [stage.name for stage in stages if stage.verdict == FAILED]
    lines = [f"# {title}", ""]
    lines += [f"**Failed at: {failed[0]}.** This is not the network that was searched.", ""] if failed else []
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    if len(rows) > 1:
        lines += ["", "## What was made", "", *_rows(rows)]
    lines += ["", "## What was checked", "", "| stage | verdict | what was found |", "|---|---|---|"]
    lines += [f"| {stage.name} | {stage.verdict} | {_cell(stage.summary)} |" for stage in stages]
    for stage in stages:
        lines += _sensitivity(stage.name, stage.details)
    if commands:
        lines += ["", "## Run it", ""]
        for what, command in commands.items():
            lines += [f"{what}:", "", "```sh", command, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(rows: Sequence[Row]) -> list[str]:
    lines = ["| target | precision | size | cosine to float32 | top-1 | note |", "|---|---|---:|---:|---:|---|"]
    for row in rows:
        size = f"{row.size_bytes / 1e6:.2f} MB" if row.files else "not built"
        parity = "not run" if row.parity is None else f"{row.parity:.6f}"
        top1 = "" if row.accuracy is None else f"{row.accuracy:.2f} %"
        note = (row.note.splitlines() or [""])[0]
        lines.append(f"| {row.target} | {row.precision} | {size} | {parity} | {top1} | {_cell(note)} |")
    return [*lines, "", "The cosine is the least of all compared images; top-1 is that of the ONNX file."]


def _sensitivity(name: str, details: Mapping[str, Any]) -> list[str]:
    found = details.get("sensitivity") or []
    if not found:
        return []
    handed = set(details.get("handed_back", ()))
    lines = ["", f"## Sensitivity to {name}", ""]
    lines += [f"Every block in {name} alone, all others in float32, on {found[0]['images']} calibration images.", ""]
    lines += ["| block | SQNR of the logits | other predictions | |", "|---|---:|---:|---|"]
    for item in sorted(found, key=lambda item: (item["finite"], item["sqnr_db"] is None, item["sqnr_db"] or 0.0)):
        equal = "no difference" if item["finite"] else "not finite"
        sqnr = equal if item["sqnr_db"] is None else f"{item['sqnr_db']:.1f} dB"
        back = "handed back to float32" if item["block"] in handed else ""
        lines.append(f"| {item['block']} | {sqnr} | {item['flips']} | {back} |")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

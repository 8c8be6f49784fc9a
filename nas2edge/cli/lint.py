"""nas2edge lint: what a target would stumble over in an ONNX file, before anything is built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas2edge.cli._common import echo_json, json_option, result_console
from nas2edge.export.registry import load_exporter, target_names

if TYPE_CHECKING:
    from nas2edge.export.lint import LintReport
    from nas2edge.export.lint_rules import Finding

_COLOURS = {"error": "red", "warning": "yellow"}
_NAMED = 3
_SETTLING = ("trt@11", "trt-rtx", "openvino", "ort")  # the installed readers are of these targets' versions


@click.command("lint")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--for", "targets", multiple=True, required=True,
    help="trt@8.2 to trt@11, trt-rtx, dla, openvino, ncnn, ort or tflite; repeatable.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Exit with code 2 for warnings too.")
@json_option
def command(model: Path, targets: tuple[str, ...], strict: bool, as_json: bool) -> None:
    """Say what a target would stumble over in an ONNX file.

    MODEL is an ONNX file, or a bundle's folder. What each target accepts stands in a dated file; where the target's own
    reader is installed (TensorRT-RTX, OpenVINO, ONNX Runtime), that is asked too.

    Exit code 2 if there are errors: the target will not build the file, or not run it as asked. Warnings exit with 0.

    Example: nas2edge lint model.onnx --for trt@8.5 --for dla
    """
    from nas2edge.export.lint_targets import lint_date

    path = model / "model.onnx" if model.is_dir() else model
    reports = _lint(path, targets)
    if as_json:
        echo_json({
            "format": "nas2edge.lint",
            "version": 1,
            "model": str(path),
            "facts_of": lint_date(),
            "targets": [_report_dict(report) for report in reports],
        })  # fmt: skip
    _show(reports, lint_date(), as_json=as_json)
    if any(report.errors or (strict and report.warnings) for report in reports):
        raise click.exceptions.Exit(2)


def _lint(path: Path, targets: Iterable[str]) -> list[LintReport]:
    from nas2edge.export.lint import lint, read_model
    from nas2edge.export.lint_targets import load_target

    loaded, found = read_model(path), [load_target(name) for name in targets]
    reports = []
    for target in found:
        name = "trt" if target.name in ("dla", "trt-rtx") else target.name.split("@")[0]
        asked = load_exporter(name).ask(path) if name in target_names() else None
        reader, complaints = asked or ("", [])
        settles = target.name in _SETTLING
        reports.append(lint(loaded, target, reader=reader, complaints=complaints, settles=settles))
    return reports


def _report_dict(report: LintReport) -> dict[str, Any]:
    return {
        "target": report.target.name,
        "title": report.target.title,
        "sources": list(report.target.sources),
        "reader": report.reader or None,
        "errors": len(report.errors),
        "warnings": len(report.warnings),
        "findings": [asdict(finding) for finding in report.findings],
    }


def _show(reports: list[LintReport], date: str, *, as_json: bool) -> None:
    from rich.markup import escape

    console = result_console(as_json=as_json)
    for report in reports:
        asked = f"; {report.reader} was asked too" if report.reader else ""
        console.print(escape(f"{report.target.name}: {report.target.title}, as known on {date}{asked}"))
        for (severity, rule, message, fix), group in groupby(_sorted(report.findings), key=_kind):
            nodes = [finding.node for finding in group if finding.node]
            more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
            where = f"{', '.join(nodes[:_NAMED])}{more}: " if nodes else ""
            console.print(f"  [{_COLOURS[severity]}]{severity:7s}[/] {rule}  {escape(f'{where}{message}')}")
            console.print(escape(f"                    {fix}"), style="dim")
        console.print(f"  errors: {len(report.errors)}, warnings: {len(report.warnings)}\n")


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then by rule; what is said alike stands together."""
    return sorted(findings, key=_kind)


def _kind(finding: Finding) -> tuple[str, str, str, str]:
    return finding.severity, finding.rule, finding.message, finding.fix

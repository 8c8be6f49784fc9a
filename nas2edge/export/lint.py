"""Linting of ONNX files: what a target would stumble over, said before anything is built, on any machine.

>>> for finding in lint(onnx.load("model.onnx"), load_target("trt@8.5")).findings:  # doctest: +SKIP
...     print(finding.rule, finding.node, finding.message)

The rules stand in `nas2edge.export.lint_rules`; what targets accept, in lint_targets.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from nas2edge.errors import FormatError, InputError
from nas2edge.export.lint_rules import ERROR, RULES, WARNING, Finding, facts_of
from nas2edge.export.lint_targets import LintTarget

READER = "N2E-L301"


@dataclass(frozen=True, slots=True, kw_only=True)
class LintReport:
    """What linting found.

    Args:
        target: What the file was linted for.
        findings: In the order of the rules, then of the graph.
        reader: Which reader was asked too, such as "tensorrt_rtx 1.7.1"; empty for none.
    """

    target: LintTarget
    findings: tuple[Finding, ...]
    reader: str = ""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the target from building or running the file."""
        return tuple(finding for finding in self.findings if finding.severity == ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that may do so, or that cost speed."""
        return tuple(finding for finding in self.findings if finding.severity == WARNING)


def lint(
    model: onnx.ModelProto,
    target: LintTarget,
    *,
    reader: str = "",
    complaints: Sequence[str] = (),
    settles: bool = True,
) -> LintReport:
    """Lints a model for a target.

    Args:
        model: The model.
        target: What to lint for.
        reader: The real reader that was asked too, if one was.
        complaints: What it had against the file.
        settles: Whether a reader without complaints settles doubts about single operators (rule N2E-L105).
    """
    facts = facts_of(model)
    findings = [finding for rule in RULES for finding in rule(facts, target)]
    if reader and settles and not complaints:
        findings = [finding for finding in findings if finding.rule != "N2E-L105"]
    findings += [
        Finding(rule=READER, severity=ERROR, node="", message=f"{reader} refuses the file: {said}",
                fix="see the rules above for what to change, if any names the node")
        for said in complaints
    ]  # fmt: skip
    return LintReport(target=target, findings=tuple(findings), reader=reader)


def read_model(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file.

    Raises:
        InputError: There is no such file.
        FormatError: It is no ONNX file, or is damaged.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected an ONNX file, such as a bundle's model.onnx")
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as err:
        said = (str(err).splitlines() or [type(err).__name__])[0]
        raise FormatError(f"{path} is no ONNX file, or is damaged: {said}") from err
    return model

"""Linting of latency tables: what betrays a wrong table before a search believes it.

>>> for finding in lint_file(Path("latency_tables/cpu.json")).findings:  # doctest: +SKIP
...     print(finding.rule, finding.row, finding.message)

The rules stand in `nas2edge.latency.lint_rules`, each with a stable id. A finding is an error where no correct table
can look like this, and a warning where one seldom does. A rule that lacks what it needs (too few rows, no known peak)
is named in `skipped`: not checked is not passed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas2edge.errors import TableError
from nas2edge.files import read_document
from nas2edge.latency.lint_rules import ERROR, RULES, WARNING, Document, Finding
from nas2edge.latency.registry import list_tables
from nas2edge.latency.table import LatencyTable
from nas2edge.latency.table_file import FORMAT, VERSION, table_to_text

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LintReport:
    """What linting one table found.

    Args:
        device: Name of the device that the table says it holds for, "" if it says none.
        findings: In the order of the rules' ids.
        skipped: Rules that could not be checked, with the reason.
    """

    device: str
    findings: tuple[Finding, ...]
    skipped: Mapping[str, str]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make a table unfit for searching."""
        return tuple(finding for finding in self.findings if finding.severity == ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that a reader should know of."""
        return tuple(finding for finding in self.findings if finding.severity == WARNING)


def lint_file(path: Path, *, others: Iterable[LatencyTable] | None = None) -> LintReport:
    """Lints a table file; the file need not be a table that loads.

    Args:
        path: The file.
        others: Tables of other devices to compare with; those that nas2edge finds by name, if None.

    Raises:
        FormatError: The file cannot be read, does not parse, or is of another format or version.
    """
    raw = read_document(path, format=FORMAT, version=VERSION)
    if others is None:
        known = (entry for entry in list_tables() if entry.path.resolve() != Path(path).resolve())
        others = [entry.table for entry in known if entry.table is not None]
    return lint_document(raw, others=others)


def lint_table(table: LatencyTable, *, others: Iterable[LatencyTable] = ()) -> LintReport:
    """Lints a table that is loaded already."""
    return lint_document(json.loads(table_to_text(table)), others=others)


def lint_document(raw: Mapping[str, Any], *, others: Iterable[LatencyTable] = ()) -> LintReport:
    """Lints the contents of a table file."""
    document = Document(raw, others=tuple(others))
    findings: list[Finding] = []
    skipped: dict[str, str] = {}
    for rule in RULES:
        result = rule.check(document)
        if isinstance(result, str):
            skipped[rule.id] = result
        else:
            findings += [Finding(rule=rule.id, advice=rule.advice, severity=severity or rule.severity, row=row,
                                 message=message) for row, message, severity in result]  # fmt: skip
    return LintReport(device=document.device_name, findings=tuple(findings), skipped=skipped)


def refuse_failing(table: LatencyTable, *, force: bool = False) -> tuple[Finding, ...]:
    """Refuses a table with lint errors; the tables of other devices are not looked at, which takes too long here.

    Args:
        table: The table that is about to be searched with.
        force: Whether to use it all the same.

    Returns:
        The errors, for a caller that was told to force them to show.

    Raises:
        TableError: The table has errors and `force` is not set; names the first of them.
    """
    errors = lint_table(table).errors
    if errors and not force:
        named = "; ".join(f"{error.rule} {error.message}" for error in errors[:_NAMED])
        more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
        raise TableError(
            f"the latency table {table.device.name!r} fails lint: {named}{more}. See all with: nas2edge tables "
            "lint FILE; measure again, or use it all the same with --force-table"
        )
    return errors

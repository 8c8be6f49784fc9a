"""The record of an export under way: stages are added as they end, and the first that fails ends the export."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from nas2edge.errors import ParityError
from nas2edge.export.bundle import keep_as_failed
from nas2edge.export.parity import FLOAT32, ParityReport, Tolerance, compare
from nas2edge.export.stages import FAILED, Stage, parity_stage

Array = npt.NDArray[np.float32]


@final
class Proof:
    """The stages so far.

    Args:
        folder: Where the bundle is being made.
        out: The bundle's name to be.
        on_stage: Called after every stage.
    """

    def __init__(self, folder: Path, out: Path, on_stage: Callable[[Stage], None]) -> None:
        self.stages: list[Stage] = []
        self.write_report: Callable[[], None] = lambda: None
        """Writes what there is, before a failed export is kept; set by whoever knows more than the stages."""
        self.on_progress: Callable[[str], None] = lambda said: None
        """Called with a few words on what takes long."""
        self._folder, self._out, self._on_stage = folder, out, on_stage
        self._started = time.perf_counter()

    def add(self, name: str, verdict: str, summary: str, details: Mapping[str, Any] | None = None) -> None:
        """Adds a stage that took all the time since the one before.

        Raises:
            ParityError: The verdict is "failed"; what there is has been kept under the failed name.
        """
        self._add(Stage(name=name, verdict=verdict, summary=summary, seconds=self._lap(), details=details or {}))

    def compare(
        self,
        name: str,
        reference: Array,
        other: Array,
        *,
        tolerance: Tolerance = FLOAT32,
        note: str = "",
        blamed: Callable[[], str] = str,
        faults: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> ParityReport:
        """Adds the stage of a comparison.

        Args:
            name: Of the stage.
            reference: Logits (N, classes).
            other: Logits of the same images.
            tolerance: What they may differ by.
            note: What else is to be said.
            blamed: Asked once the comparison has failed: where the networks part.
            faults: What else is wrong; any fails the stage.
            details: More for the JSON report.

        Raises:
            ParityError: They differ by more.
        """
        if other.shape != reference.shape:
            said = f"it returns shape {other.shape}, expected {reference.shape}"
            self.add(name, FAILED, f"{note}: {said}" if note else said)
        report = compare(reference, other, tolerance=tolerance)
        notes = [note] if report.passed and not faults else [note, blamed()]
        note = "; ".join(part for part in notes if part)
        seconds = self._lap()
        self._add(parity_stage(name, report, seconds=seconds, note=note, faults=faults, details=details or {}))
        return report

    def _add(self, stage: Stage) -> None:
        self.stages.append(stage)
        self._on_stage(stage)
        if stage.verdict == FAILED:
            self.write_report()
            failed = keep_as_failed(self._folder, self._out)
            older = f"; the older bundle in {self._out} is as it was" if self._out.exists() else ""
            raise ParityError(
                f"the export failed at the stage {stage.name!r}: {stage.summary}. No bundle was written; what there "
                f"is, with a report, lies in {failed}{older}"
            )

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        return seconds

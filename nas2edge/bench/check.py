"""The whole check of a new network against an older one and absolute limits: gates without a clock first, then timing.

What may fail a build is a choice (`Request.mode`), since a shared machine cannot be trusted with milliseconds:

- "deterministic": only figures that are the same every time; nothing is timed;
- "measured": these first, and then the measured latency;
- "auto": as "measured" on a quiet machine; on a busy one or a CI runner the latency is measured and shown, but
  cannot fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, final

import numpy as np

from nas2edge.bench.artefact import Artefact, find_artefact
from nas2edge.bench.compare import anchor_file
from nas2edge.bench.fingerprint import shared_runner, take_fingerprint
from nas2edge.bench.footprint import Footprint, read_footprint, read_input
from nas2edge.bench.gate import FAILED, INCONCLUSIVE, PASSED, Comparison, Rule, decide
from nas2edge.bench.gates import (
    MEASURED_LATENCY,
    SKIPPED,
    Gate,
    absolute_gate,
    footprint_gates,
    measured_gate,
    skipped_gate,
    table_gates,
)
from nas2edge.bench.measure import Options, Round, Start, measure_round, stack_logs
from nas2edge.bench.predicted import layers_from, layers_of
from nas2edge.bench.result import Stored
from nas2edge.bench.stats import DEFAULT_CONFIDENCE, difference_interval, median_interval
from nas2edge.errors import InputError
from nas2edge.latency.table import LatencyTable
from nas2edge.plan import LayerSpec

logger = logging.getLogger(__name__)

MODES = AUTO, MEASURED, DETERMINISTIC = "auto", "measured", "deterministic"
EXIT_CODES = {FAILED: 6, INCONCLUSIVE: 5, PASSED: 0, SKIPPED: 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to check.

    Args:
        new: The new network.
        old: What it is compared with: an artefact, or a stored result; None for absolute limits only.
        max_slowdown: Greatest slowdown allowed, as a fraction.
        max_growth: Greatest growth allowed of the figures that need no clock; None: as `max_slowdown`.
        max_latency_ms: Greatest latency allowed, of the table if there is one, else measured.
        table: Latency table of the target device.
        mode: One of `MODES`.
        budget_s: Seconds that timing may take.
        options: How to time.

    Raises:
        InputError: There is nothing to compare with, or a number is out of range.
    """

    new: Artefact
    old: Artefact | Stored | None
    max_slowdown: float = 0.05
    max_growth: float | None = None
    max_latency_ms: float | None = None
    table: LatencyTable | None = None
    mode: str = AUTO
    budget_s: float = 60.0
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if self.old is None and self.max_latency_ms is None:
            raise InputError("there is nothing to check against; give --baseline, or --max-latency")
        if self.mode not in MODES:
            raise InputError(f"the gate is {self.mode!r}; expected one of {', '.join(MODES)}")
        if self.mode == DETERMINISTIC and self.max_latency_ms is not None and self.table is None:
            raise InputError(
                "--max-latency needs a table (--device) or a measurement (--gate measured or auto), and "
                "--gate deterministic measures nothing"
            )
        self.rule()

    def rule(self, share: float = 1.0) -> Rule:
        """Returns the rule of a measured gate that may use a share of the budget."""
        return Rule(max_slowdown=self.max_slowdown, budget_s=self.budget_s * share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of a check.

    Args:
        gates: All that was checked, in order.
        notes: What a reader must know: why latency is advisory, that a baseline was rebuilt.
        new: Footprint of the new network.
        old: Footprint of the older one; None if there is none.
    """

    gates: tuple[Gate, ...]
    notes: tuple[str, ...]
    new: Footprint
    old: Footprint | None

    @property
    def verdict(self) -> str:
        """Of the whole: "failed" if a hard gate is, else "inconclusive" if one is, else "passed"."""
        verdicts = {gate.verdict for gate in self.gates if gate.hard}
        return next((verdict for verdict in (FAILED, INCONCLUSIVE) if verdict in verdicts), PASSED)

    @property
    def exit_code(self) -> int:
        """0 passed, 5 inconclusive, 6 failed."""
        return EXIT_CODES[self.verdict]


def check(
    request: Request,
    *,
    on_gate: Callable[[Gate], None] = lambda gate: None,
    progress: Callable[[Comparison, bool], None] = lambda comparison, confirming: None,
) -> Report:
    """Checks a network.

    Args:
        request: What to check.
        on_gate: Called with each gate as it ends.
        progress: Called after each round of timing, with whether it belongs to a rerun.

    Raises:
        InputError: The networks have different inputs, or a file cannot be used.
        RuntimeFailedError: A runtime refused a network, crashed, or did not answer in time.
    """
    return _Check(request, on_gate, progress).run()


@final
class _Check:
    """One check under way."""

    def __init__(
        self, request: Request, on_gate: Callable[[Gate], None], progress: Callable[[Comparison, bool], None]
    ) -> None:
        self._request, self._on_gate, self._progress = request, on_gate, progress
        self._notes: list[str] = []
        self._gates: list[Gate] = []

    def run(self) -> Report:
        request = self._request
        _check_inputs(request)
        new = read_footprint(request.new)
        old = _footprint_of(request.old)
        growth = request.max_slowdown if request.max_growth is None else request.max_growth
        for gate in footprint_gates(new, old, max_growth=growth):
            self._add(gate)
        for gate in _predicted(request):
            self._add(gate)
        if request.mode != DETERMINISTIC:
            if any(gate.verdict == FAILED for gate in self._gates):
                self._add(skipped_gate("nothing was timed, since a gate without a clock failed"))
            else:
                self._measure()
        return Report(gates=tuple(self._gates), notes=tuple(self._notes), new=new, old=old)

    def _add(self, gate: Gate) -> None:
        self._gates.append(gate)
        self._on_gate(gate)

    def _measure(self) -> None:
        request = self._request
        shared = shared_runner() if request.mode == AUTO else ""
        if shared:
            self._notes.append(
                f"{shared}, so the measured latency is shown but cannot fail; --gate measured makes it count"
            )
        absolute = request.max_latency_ms is not None and request.table is None
        share = 0.5 if absolute and request.old is not None else 1.0
        if request.old is not None:
            self._add(self._relative(hard=not shared, share=share))
        if absolute:
            self._add(self._absolute(hard=not shared, share=share))

    def _relative(self, *, hard: bool, share: float) -> Gate:
        request = self._request
        old = request.old
        if isinstance(old, Stored):
            reason = self._why_not_stored(old)
            if not reason:
                return self._against_stored(old, hard=hard, share=share)
            rebuilt = find_stored_artefact(old)
            if rebuilt is None:
                reason += f"; {old.name}, of which it was taken, is not here to be measured again"
                return Gate(name=MEASURED_LATENCY, verdict=INCONCLUSIVE, hard=hard, detail=reason)
            self._notes.append(f"{reason}; {old.name} is measured again instead")
            old = rebuilt
        assert isinstance(old, Artefact)
        trio = [old, request.new, old]
        decision = decide(self._rounds(trio, request.options), request.rule(share), progress=self._progress)
        return measured_gate(decision, request.max_slowdown, hard=hard)

    def _why_not_stored(self, stored: Stored) -> str:
        """Why the stored times cannot be compared with times of this machine, "" if they can."""
        if stored.fingerprint is None or stored.logs is None or stored.anchor_logs is None:
            return f"{stored.path} holds no times"
        start = self._probe()
        if self._request.options.same_input:
            _check_same(
                self._request.new.name, (start.shape, start.dtype), str(stored.path), (stored.shape, stored.dtype)
            )
        here = take_fingerprint(runtimes=(start.runtime,), threads=self._request.options.threads)
        differences = here.differences(stored.fingerprint)
        return f"{stored.path} is of another machine or setting ({'; '.join(differences)})" if differences else ""

    def _probe(self) -> Start:
        return measure_round([self._request.new], replace(self._request.options, cycles=1)).starts[0]

    @staticmethod
    def _rounds(artefacts: Sequence[Artefact], options: Options) -> Callable[[], Round]:
        numbers = count()
        return lambda: measure_round(artefacts, options, number=next(numbers))

    def _against_stored(self, stored: Stored, *, hard: bool, share: float) -> Gate:
        request = self._request
        self._notes.append(
            f"compared with times stored in {stored.path}, both relative to the anchor network; a comparison with the "
            "artefact itself is sharper"
        )
        with anchor_file() as path:
            anchor = Artefact(name="the anchor", path=path, runtime="onnxruntime")
            options = replace(request.options, same_input=False)
            decision = decide(
                self._rounds([anchor, request.new], options),
                request.rule(share),
                judge=lambda rounds: _compare_stored(rounds, stored),
                progress=self._progress,
            )
        return measured_gate(decision, request.max_slowdown, hard=hard)

    def _absolute(self, *, hard: bool, share: float) -> Gate:
        request = self._request
        assert request.max_latency_ms is not None
        limit = request.max_latency_ms
        pair = [request.new, request.new]
        decision = decide(
            self._rounds(pair, request.options),
            replace(request.rule(share), max_slowdown=0.0),
            judge=lambda rounds: _compare_limit(rounds, limit_ms=limit),
            progress=self._progress,
        )
        return absolute_gate(decision, limit, hard=hard)


def find_stored_artefact(stored: Stored) -> Artefact | None:
    """Returns the artefact that a stored result was taken of, if it is still there and still the same.

    It is looked for under its name, from the current folder and from that of the stored result.
    """
    for name in (Path(stored.name), stored.path.parent / stored.name):
        if name.exists():
            artefact = find_artefact(str(name), runtime=stored.runtime, shape=stored.shape)
            if artefact.sha256 == stored.sha256:
                return artefact
    return None


def _predicted(request: Request) -> Iterator[Gate]:
    if request.table is None:
        return iter(())
    return table_gates(
        request.new,
        _layers(request.old),
        request.table,
        max_slowdown=request.max_slowdown,
        max_latency_ms=request.max_latency_ms,
    )


def _layers(old: Artefact | Stored | None) -> tuple[LayerSpec, ...] | None:
    if isinstance(old, Stored):
        return None if old.subnet is None else layers_from(old.subnet, name=str(old.path))
    return None if old is None else layers_of(old)


def _check_inputs(request: Request) -> None:
    """Where files say their inputs, before anything is timed."""
    if not request.options.same_input:
        return
    new, old = read_input(request.new), None
    if isinstance(request.old, Stored):
        old = (request.old.shape, request.old.dtype) if request.old.dtype else None
    elif request.old is not None:
        old = read_input(request.old)
    if new is not None and old is not None:
        assert request.old is not None
        _check_same(request.new.name, new, request.old.name, old)


def _check_same(name: str, new: tuple[tuple[int, ...], str], other: str, old: tuple[tuple[int, ...], str]) -> None:
    if new != old:
        raise InputError(
            f"{name} takes {new[1]} {_shape(new[0])}, but {other} {old[1]} {_shape(old[0])}; only networks with the "
            "same input are compared, unless --different-inputs says that this is meant"
        )


def _footprint_of(old: Artefact | Stored | None) -> Footprint | None:
    if old is None:
        return None
    return old.footprint if isinstance(old, Stored) else read_footprint(old)


def _compare_stored(rounds: Sequence[Round], stored: Stored) -> Comparison:
    """Of rounds of two rows, the anchor and the new network; the control is the anchor, now over then."""
    assert stored.logs is not None and stored.anchor_logs is not None
    logs = stack_logs(rounds)
    control = difference_interval(logs[0], stored.anchor_logs, confidence=DEFAULT_CONFIDENCE)
    ratio = difference_interval(logs[1] - logs[0], stored.logs - stored.anchor_logs)
    return Comparison(ratio=ratio.widen(abs(control.estimate)).map(_exp), control=control.map(_exp), rounds=len(rounds))


def _compare_limit(rounds: Sequence[Round], *, limit_ms: float) -> Comparison:
    """Of rounds of the new network in two processes: its latency over the limit, and one process over the other."""
    logs = stack_logs(rounds)
    control = median_interval(logs[1] - logs[0])
    ratio = median_interval(logs.mean(axis=0) - np.log(limit_ms / 1e3)).widen(abs(control.estimate))
    return Comparison(ratio=ratio.map(_exp), control=control.map(_exp), rounds=len(rounds))


def _exp(value: float) -> float:
    return float(np.exp(min(value, 700.0)))


def _shape(shape: Any) -> str:
    return "x".join(map(str, shape))

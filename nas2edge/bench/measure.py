"""Timing artefacts beside each other: in every round each has a fresh process, and they take turns for milliseconds.

    cycle 1:  A B C  C B A      cycle 2:  B C A  A C B      cycle 3:  C A B  B A C      ...

Only one process runs at a time. A cycle goes there and back, so that a drift takes as much from one as from the other,
and the order turns from cycle to cycle, so that each follows each. Each turn is a *slice*: a run that is not timed, so
that no artefact pays for the caches that the one before it filled, then so many that are; its time is their median. Of
an artefact that takes longer than a slice, every run is timed.

A process keeps the memory that it was given, and that decides too: of four processes of one network with 36 MB of
weights, the last one started was 1 to 9 % faster than the first, in every round. So rounds begin with another each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from nas2edge.bench.artefact import Artefact
from nas2edge.bench.process import DEFAULT_TIME_LIMIT_S, Worker
from nas2edge.errors import InputError
from nas2edge.runtimes.operators import OperatorTime

Array = npt.NDArray[np.float64]

_MAX_RUNS = 1000  # in a slice
_MIN_CYCLES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to time.

    Args:
        threads: Threads that a run may use.
        slice_s: Seconds of one slice, and at least one run.
        cycles: Cycles of a round; each artefact has two slices in one.
        round_s: Seconds of slices in a round. If the cycles would take longer, there are fewer, but at least four.
        time_limit_s: Seconds that a process may take for loading, or for one slice.
        same_input: Whether artefacts with different inputs are refused.
        seed: Draws the input.
    """

    threads: int = 1
    slice_s: float = 0.005
    cycles: int = 12
    round_s: float = 5.0
    time_limit_s: float = DEFAULT_TIME_LIMIT_S
    same_input: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How an artefact started in one process.

    Args:
        runtime: Name and version of the runtime.
        shape: Of the input.
        dtype: Of the input.
        load_s: Seconds until the runtime had loaded it.
        first_s: Seconds of the first run.
        warm_up: {"runs", "seconds", "stable"}.
        peak_bytes: Greatest memory of the process so far; None where the system does not tell.
        before_bytes: Its memory before loading.
    """

    runtime: str
    shape: tuple[int, ...]
    dtype: str
    load_s: float
    first_s: float
    warm_up: dict[str, Any]
    peak_bytes: int | None
    before_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The samples of one round.

    Args:
        logs: Natural logarithm of seconds a run, of shape (artefacts, cycles); a cycle's two slices are averaged.
        runs: Seconds of every timed run, one array an artefact.
        starts: How each started.
        disturbed: Share of slices in which another process was given the core.
        seconds: What the round took.
    """

    logs: Array
    runs: tuple[Array, ...] = ()
    starts: tuple[Start, ...] = ()
    disturbed: float = 0.0
    seconds: float = 0.0


def measure_round(artefacts: Sequence[Artefact], options: Options, *, number: int = 0) -> Round:
    """Times artefacts in one round.

    Args:
        artefacts: One or more; the same one twice is timed in two processes.
        options: How to time.
        number: Of the round: the process that starts first is that of the artefact at this index, modulo their number.

    Raises:
        RuntimeFailedError: A runtime refused an artefact, crashed, or did not answer in time.
        InputError: The artefacts have different inputs.
    """
    shift = number % len(artefacts)
    found = _measure([*artefacts[shift:], *artefacts[:shift]], options)
    order = [(i - shift) % len(artefacts) for i in range(len(artefacts))]
    return replace(
        found,
        logs=found.logs[order],
        runs=tuple(found.runs[i] for i in order),
        starts=tuple(found.starts[i] for i in order),
    )


def _measure(artefacts: Sequence[Artefact], options: Options) -> Round:
    started = perf_counter()
    with ExitStack() as stack:
        # They import their runtimes side by side, and load and warm up one after the other.
        workers = [
            stack.enter_context(Worker(artefact.name, artefact.runtime, time_limit_s=options.time_limit_s))
            for artefact in artefacts
        ]
        ready = [
            worker.ask(path=str(artefact.path), threads=options.threads, shape=artefact.shape, seed=options.seed)
            for worker, artefact in zip(workers, artefacts, strict=True)
        ]
        starts = tuple(_start(reply) for reply in ready)
        if options.same_input:
            check_same_input(artefacts, starts)
        plan = [_Slice.of(reply["run_s"], options.slice_s) for reply in ready]
        cycle_s = 2.0 * sum(part.seconds for part in plan)
        cycles = min(options.cycles, max(_MIN_CYCLES, int(options.round_s / cycle_s)))
        slices, runs, disturbed = _take_turns(workers, plan, cycles)
    return Round(
        logs=np.log(slices).mean(axis=2),
        runs=tuple(np.concatenate(found) for found in runs),
        starts=starts,
        disturbed=disturbed,
        seconds=perf_counter() - started,
    )


def stack_logs(rounds: Sequence[Round]) -> Array:
    """Returns the samples of rounds as one array (artefacts, rounds, cycles), of as many cycles as all rounds have."""
    cycles = min(found.logs.shape[1] for found in rounds)
    return np.stack([found.logs[:, :cycles] for found in rounds], axis=1)


def profile_operators(artefact: Artefact, options: Options, *, runs: int = 50) -> list[OperatorTime]:
    """Profiles an artefact in a process of its own; returns its operators in order of execution.

    Raises:
        RuntimeFailedError: Its runtime has no profiler that is read here, or it failed.
    """
    with Worker(artefact.name, artefact.runtime, time_limit_s=options.time_limit_s) as worker:
        worker.ask(path=str(artefact.path), threads=options.threads, shape=artefact.shape, seed=options.seed)
        return [OperatorTime(**entry) for entry in worker.ask(do="operators", runs=runs)["operators"]]


def check_same_input(artefacts: Sequence[Artefact], starts: Sequence[Start]) -> None:
    """Checks that artefacts take the same input, so that it makes sense to compare them.

    Raises:
        InputError: Shape or type differ; says which.
    """
    first = starts[0]
    for artefact, start in zip(artefacts, starts, strict=True):
        if (start.shape, start.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{artefact.name} takes {_described(start)}, but {artefacts[0].name} {_described(first)}; "
                "only networks with the same input are compared, unless --different-inputs says that this is meant"
            )


def turns(artefacts: int, cycle: int) -> list[int]:
    """Returns the order of slices in a cycle: there and back, beginning one further each time."""
    there = [(cycle + i) % artefacts for i in range(artefacts)]
    return there + there[::-1]


@dataclass(frozen=True, slots=True)
class _Slice:
    """Runs of an artefact in one slice, first those that are not timed, and about what they take."""

    lead: int
    runs: int
    seconds: float

    @classmethod
    def of(cls, run_s: float, slice_s: float) -> _Slice:
        runs = min(_MAX_RUNS, max(1, math.ceil(slice_s / run_s)))
        lead = 1 if runs > 1 else 0
        return cls(lead, runs, run_s * (lead + runs))


def _take_turns(
    workers: Sequence[Worker], plan: Sequence[_Slice], cycles: int
) -> tuple[Array, list[list[Array]], float]:
    """Returns slice times of shape (artefacts, cycles, 2), all runs, and the share of disturbed slices."""
    found: list[list[Array]] = [[] for _ in workers]
    disturbed = 0
    for cycle in range(cycles):
        for turn in turns(len(workers), cycle):
            reply = workers[turn].ask(do="slice", lead=plan[turn].lead, runs=plan[turn].runs)
            found[turn].append(np.array(reply["seconds"]))
            disturbed += reply["disturbed"]
    medians = np.array([[np.median(runs) for runs in slices] for slices in found])
    return medians.reshape(len(workers), cycles, 2), found, disturbed / medians.size


def _start(reply: dict[str, Any]) -> Start:
    names = ("runtime", "dtype", "load_s", "first_s", "warm_up", "peak_bytes", "before_bytes")
    return Start(shape=tuple(reply["shape"]), **{name: reply[name] for name in names})


def _described(start: Start) -> str:
    return f"{start.dtype} {'x'.join(map(str, start.shape))}"

"""What tells a disturbed machine: a reference block and a copy in memory, timed again and again.

>>> guard = Guard(make_look(prepare(REFERENCE)))  # doctest: +SKIP
>>> guard.check() / guard.floor.reference  # doctest: +SKIP
1.004
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import final

import numpy as np

Timed = Callable[[int], tuple[float, float]]
"""Executes its item so many times in a row; returns the seconds that passed, and those that the core worked for it
(the same number where that is unknown)."""

Look = Callable[[], tuple[float, float]]
"""Times a reference; returns the milliseconds of one run, and the seconds that finding this took."""

_FLOOR_PERCENTILE = 5.0
_REFERENCE_SAMPLES, _MEMORY_SAMPLES = 7, 3
_REFERENCE_WARMUP_S = 2e-3  # the process of a visit leaves cold caches behind
_SETTLE_S, _GIVEN_UP_S = 5.0, 0.1
_LEAST_COPY_MB = 16.0


@dataclass(frozen=True, slots=True)
class Floor:
    """Times of the references on a quiet machine, in milliseconds.

    Args:
        reference: Of the reference block.
        memory: Of the copy in memory; infinite if it was never timed.
    """

    reference: float
    memory: float = math.inf


@final
class Guard:
    """Times the references and remembers their floors.

    Args:
        look: Times the reference block.
        memory: The copy in memory; None leaves it out.
        seen: Their times, in milliseconds, in the visits of a measurement that is resumed; 0 for a copy not timed.
    """

    def __init__(self, look: Look, *, memory: Timed | None = None, seen: Iterable[tuple[float, float]] = ()) -> None:
        earlier = list(seen)
        self._look, self._memory = look, memory
        self._seen = [time for time, _ in earlier]
        self._seen_memory = [time for _, time in earlier if time]
        self._settle_s = _SETTLE_S
        for _ in range(20):
            self.note(self.check())

    def note(self, reference_ms: float) -> None:
        """Takes a time of the reference into account for its floor."""
        self._seen.append(reference_ms)

    def check(self) -> float:
        """Times the reference now; returns milliseconds."""
        return self._look()[0]

    def settle(self, limit_ms: float) -> float:
        """Waits until the reference takes no longer than this, for a while at most; returns its time then.

        On a shared host others have the core, or half of it, or the way between two cores, for a tenth of a second to
        some seconds. What outlasts the wait halves the next one, down to a tenth of a second: a machine that is never
        quiet is not waited for again and again.
        """
        waited, found = 0.0, math.inf
        while found > limit_ms and waited <= self._settle_s:
            found, seconds = self._look()
            waited += seconds
        self._settle_s = _SETTLE_S if found <= limit_ms else max(_GIVEN_UP_S, self._settle_s / 2)
        return found

    def check_memory(self) -> float:
        """Times the copy in memory now; returns milliseconds, 0 if there is none."""
        if self._memory is None:
            return 0.0
        self._seen_memory.append(float(np.median([self._memory(1)[0] for _ in range(_MEMORY_SAMPLES)])) * 1e3)
        return self._seen_memory[-1]

    @property
    def floor(self) -> Floor:
        """The references' times on a quiet machine: a low percentile of all that were noted."""
        memory = float(np.percentile(self._seen_memory, _FLOOR_PERCENTILE)) if self._seen_memory else math.inf
        return Floor(float(np.percentile(self._seen, _FLOOR_PERCENTILE)), memory)


def make_look(reference: Timed) -> Look:
    """Returns what times a reference: warm, and in the median of a few samples."""
    runs = max(1, math.ceil(1e-4 / max(min(reference(1)[0] for _ in range(20)), 1e-9)))

    def look() -> tuple[float, float]:
        warm_up(reference, seconds=_REFERENCE_WARMUP_S)
        samples = [reference(runs)[0] for _ in range(_REFERENCE_SAMPLES)]
        return float(np.median(samples)) / runs * 1e3, _REFERENCE_WARMUP_S + sum(samples)

    return look


def memory_copy(cache_mb: float | None) -> Timed:
    """Returns a copy between two arrays that no last-level cache holds."""
    size = int(max(_LEAST_COPY_MB, cache_mb or 0.0) * 1e6)
    source, target = np.ones(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8)

    def timed(n: int) -> tuple[float, float]:
        worked, start = thread_time(), perf_counter()
        for _ in range(n):
            np.copyto(target, source)
        return perf_counter() - start, thread_time() - worked

    return timed


def warm_up(timed: Timed, *, seconds: float) -> float:
    """Runs something for a while, twice at least; returns the seconds of its fastest run."""
    fastest, spent, runs = math.inf, 0.0, 0
    while spent < seconds or runs < 2:
        elapsed = max(timed(1)[0], 1e-9)
        fastest, spent, runs = min(fastest, elapsed), spent + elapsed, runs + 1
    return fastest

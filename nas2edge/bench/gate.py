"""Is the new network slower than it may be? A decision from paired samples that a noisy machine cannot push around.

The statistic is the median of paired ratios, new over old, with a block-bootstrap interval (`nas2edge.bench.stats`).
The old network runs in two processes: each sample of the new one is compared with the mean of both, and what the two
differ by, which should be nothing, is the A/A control. Whatever the control is off by, the interval is widened by.

- *passed*: the whole interval lies below the limit;
- *failed*: it lies above, and so does the interval of a rerun that shares no process and no sample with the first;
- *inconclusive*: neither, within the budget.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from nas2edge.bench.measure import Array, Round, stack_logs
from nas2edge.bench.stats import DEFAULT_CONFIDENCE, Interval, median_interval
from nas2edge.errors import InputError

logger = logging.getLogger(__name__)

PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"
OLD, NEW, AGAIN = range(3)
"""Rows of a round's samples: the old network, the new one, and the old one in a second process."""

MIN_ROUNDS = 3
_MAX_ROUNDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When to decide, and what.

    Args:
        max_slowdown: Greatest slowdown allowed, as a fraction: 0.05 for 5 %.
        budget_s: Seconds for everything, confirmation included.
        confidence: Of the intervals.
        min_rounds: Rounds before the first decision.

    Raises:
        InputError: The budget is not positive, the slowdown is not at least 0, or there are fewer than two rounds.
    """

    max_slowdown: float
    budget_s: float = 60.0
    confidence: float = DEFAULT_CONFIDENCE
    min_rounds: int = MIN_ROUNDS

    def __post_init__(self) -> None:
        if not 0 < self.budget_s < math.inf:
            raise InputError(f"the budget is {self.budget_s:g} s; expected a positive number of seconds")
        if not 0 <= self.max_slowdown < math.inf:
            raise InputError(f"the greatest slowdown is {self.max_slowdown:g}; expected 0 or more, as 0.05 for 5 %")
        if self.min_rounds < 2:
            raise InputError(f"min_rounds is {self.min_rounds}; an interval needs 2 rounds or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the rounds of one series say.

    Args:
        ratio: New over old, with its widened interval.
        control: Old over old; 1 but for noise.
        rounds: How many there were.
    """

    ratio: Interval
    control: Interval
    rounds: int

    def verdict(self, max_slowdown: float) -> str:
        """Returns "passed" or "failed" if the whole interval lies on one side of the limit, else "inconclusive"."""
        limit = 1.0 + max_slowdown
        if self.ratio.high < limit:
            return PASSED
        return FAILED if self.ratio.low > limit else INCONCLUSIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome of a gate.

    Args:
        verdict: "passed", "failed" or "inconclusive".
        comparison: What decided; None if not even two rounds fitted the budget.
        confirmation: The rerun, if there was one.
        reason: The verdict in words, without its figures.
        seconds: What it took.
        rounds: All rounds, those of the rerun last.
    """

    verdict: str
    comparison: Comparison | None
    confirmation: Comparison | None
    reason: str
    seconds: float
    rounds: tuple[Round, ...]


def compare(rounds: Sequence[Round], *, confidence: float = DEFAULT_CONFIDENCE) -> Comparison:
    """Compares the new network with the old one over rounds of three rows of samples: OLD, NEW, AGAIN."""
    logs = stack_logs(rounds)
    control = median_interval(logs[AGAIN] - logs[OLD], confidence=confidence)
    paired = logs[NEW] - (logs[OLD] + logs[AGAIN]) / 2.0
    ratio = median_interval(paired, confidence=confidence).widen(abs(control.estimate))
    return Comparison(ratio=ratio.map(_exp), control=control.map(_exp), rounds=len(rounds))


def decide(
    next_round: Callable[[], Round],
    rule: Rule,
    *,
    judge: Callable[[Sequence[Round]], Comparison] | None = None,
    clock: Callable[[], float] = monotonic,
    progress: Callable[[Comparison, bool], None] = lambda comparison, confirming: None,
) -> Decision:
    """Takes rounds until they allow a verdict or the budget is spent.

    Args:
        next_round: Measures one round; raises what a failing runtime raises.
        rule: When to decide.
        judge: Makes a comparison of rounds; by default `compare`, at the rule's confidence.
        clock: Seconds.
        progress: Called after each round that can be judged, with whether it belongs to the rerun.
    """
    judge = judge or (lambda rounds: compare(rounds, confidence=rule.confidence))
    series = _Series(next_round, rule, judge, clock, progress)
    first, rounds = series.run(confirming=False)
    if first is None:
        reason = f"the budget of {rule.budget_s:g} s holds fewer than {rule.min_rounds} rounds"
        return series.decision(INCONCLUSIVE, None, None, reason)
    verdict = first.verdict(rule.max_slowdown)
    if rounds < rule.min_rounds:
        reason = f"the budget of {rule.budget_s:g} s held {rounds} rounds, and a verdict needs {rule.min_rounds}"
        return series.decision(INCONCLUSIVE, first, None, reason)
    if verdict == PASSED:
        return series.decision(PASSED, first, None, "the whole interval lies below the limit")
    if verdict == INCONCLUSIVE:
        return series.decision(INCONCLUSIVE, first, None, "the interval holds the limit, and the budget is spent")
    again, rounds = series.run(confirming=True)
    if again is None or rounds < rule.min_rounds:
        reason = "the whole interval lies above the limit, but the budget is spent before a rerun could confirm it"
        return series.decision(INCONCLUSIVE, first, again, reason)
    verdict = again.verdict(rule.max_slowdown)
    if verdict == FAILED:
        return series.decision(FAILED, first, again, "the whole interval lies above the limit, and a rerun confirms it")
    return series.decision(
        INCONCLUSIVE, first, again, "the interval lies above the limit, but a rerun does not confirm"
    )


class _Series:
    """Rounds of one decision: first until there is a verdict, then those that confirm it."""

    def __init__(
        self,
        next_round: Callable[[], Round],
        rule: Rule,
        judge: Callable[[Sequence[Round]], Comparison],
        clock: Callable[[], float],
        progress: Callable[[Comparison, bool], None],
    ) -> None:
        self._next_round, self._rule, self._judge = next_round, rule, judge
        self._clock, self._progress = clock, progress
        self._start = clock()
        self._longest = 0.0
        self._rounds: list[Round] = []

    def run(self, *, confirming: bool) -> tuple[Comparison | None, int]:
        """Takes rounds until they agree on one side of the limit; returns the last comparison and how many they were.

        One round that would not fit the budget is not begun.
        """
        taken: list[Round] = []
        comparison: Comparison | None = None
        while len(taken) < _MAX_ROUNDS and self._clock() - self._start + self._longest < self._rule.budget_s:
            before = self._clock()
            taken.append(self._next_round())
            self._longest = max(self._longest, self._clock() - before)
            if len(taken) < 2:
                continue
            comparison = self._judge(taken)
            logger.debug("round %d: %s", len(taken), comparison)
            self._progress(comparison, confirming)
            if len(taken) >= self._rule.min_rounds and comparison.verdict(self._rule.max_slowdown) != INCONCLUSIVE:
                break
        self._rounds += taken
        return comparison, len(taken)

    def decision(
        self, verdict: str, comparison: Comparison | None, confirmation: Comparison | None, reason: str
    ) -> Decision:
        return Decision(
            verdict=verdict,
            comparison=comparison,
            confirmation=confirmation,
            reason=reason,
            seconds=self._clock() - self._start,
            rounds=tuple(self._rounds),
        )


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def log_ratios(rounds: Sequence[Round], *, new: int, old: int) -> Array:
    """Returns paired log ratios of two rows of samples, of shape (rounds, cycles)."""
    logs = stack_logs(rounds)
    return np.asarray(logs[new] - logs[old])

"""Intervals for timings that drift and come in bursts: block bootstrap over rounds of paired samples.

Samples of one *round* share a process, so they share whatever that process was dealt: memory layout, a noisy neighbour,
a clock. Rounds are therefore resampled whole, and inside each round blocks of consecutive samples, so that bursts stay
bursts (Davison & Hinkley, "Bootstrap Methods and their Application", 1997, sections 3.8 and 8.2). With few rounds a
bootstrap interval is too narrow; it is stretched as a t interval is beside a normal one (the expanded percentile
interval of Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 4.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DEFAULT_CONFIDENCE = 0.95
_RESAMPLES = 1000
_BLOCK = 4  # samples in a row that are resampled together


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval, all in the unit of the samples.

    Args:
        estimate: The median of all samples.
        low: Lower end.
        high: Upper end.
    """

    estimate: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """Returns the interval of an increasing function of the samples."""
        return Interval(estimate=function(self.estimate), low=function(self.low), high=function(self.high))

    def widen(self, by: float) -> Interval:
        """Returns the interval with both ends moved outwards."""
        return Interval(estimate=self.estimate, low=self.low - by, high=self.high + by)


def median_interval(samples: Array, *, confidence: float = DEFAULT_CONFIDENCE, seed: int = 0) -> Interval:
    """Returns the median of samples with its interval.

    Args:
        samples: Shape (rounds, samples); samples of a round in the order in which they were taken.
        confidence: Share of such intervals that hold the true median.
        seed: Draws the resamples.
    """
    estimate = float(np.median(samples))
    medians = resampled_medians(samples, rng=np.random.default_rng(seed))
    return _interval(estimate, medians, units=_units(samples), confidence=confidence)


def difference_interval(new: Array, old: Array, *, confidence: float = DEFAULT_CONFIDENCE, seed: int = 0) -> Interval:
    """Returns the median of `new` minus that of `old`, which were taken apart, with its interval.

    Args:
        new: Shape (rounds, samples).
        old: Shape (rounds, samples); other sizes than those of `new` are fine.
        confidence: Share of such intervals that hold the true difference.
        seed: Draws the resamples.
    """
    rng = np.random.default_rng(seed)
    estimate = float(np.median(new) - np.median(old))
    medians = resampled_medians(new, rng=rng) - resampled_medians(old, rng=rng)
    return _interval(estimate, medians, units=min(_units(new), _units(old)), confidence=confidence)


def resampled_medians(samples: Array, *, rng: np.random.Generator) -> Array:
    """Returns medians of resamples: rounds with replacement, in each circular blocks of consecutive samples."""
    rounds, length = samples.shape
    blocks = -(-length // _BLOCK)
    starts = rng.integers(0, length, size=(_RESAMPLES, rounds, blocks, 1))
    columns = ((starts + np.arange(_BLOCK)) % length).reshape(_RESAMPLES, rounds, -1)[:, :, :length]
    rows = rng.integers(0, rounds, size=(_RESAMPLES, rounds, 1))
    return np.asarray(np.median(samples[rows, columns].reshape(_RESAMPLES, -1), axis=1))


@lru_cache
def t_quantile(probability: float, degrees: int) -> float:
    """Returns a quantile, above one half, of Student's t distribution."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (low, middle) if _t_cdf(middle, degrees) > probability else (middle, high)
    return (low + high) / 2.0


def _t_cdf(t: float, degrees: int) -> float:
    """For t >= 0; the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = math.cos(theta) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= math.cos(theta) ** 2 * (k - 1) / k
        total += term
    inside = 2.0 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total
    return 0.5 + inside / 2.0


def _units(samples: Array) -> int:
    """Independent parts: rounds, or blocks where there is but one round."""
    rounds, length = int(samples.shape[0]), int(samples.shape[1])
    return rounds if rounds > 1 else length // _BLOCK


def _interval(estimate: float, medians: Array, *, units: int, confidence: float) -> Interval:
    if units < 2:
        return Interval(estimate=estimate, low=-math.inf, high=math.inf)
    tail = (1.0 + confidence) / 2.0
    stretch = t_quantile(tail, units - 1) / NormalDist().inv_cdf(tail) * math.sqrt(units / (units - 1))
    low, high = np.quantile(medians, [1.0 - tail, tail]).tolist()
    # A skewed bootstrap distribution may lie on one side of the estimate; the interval never does.
    below, above = max(0.0, estimate - low), max(0.0, high - estimate)
    return Interval(estimate=estimate, low=estimate - stretch * below, high=estimate + stretch * above)

"""A made-up machine that times networks badly: it drifts, has bursts of other work, and deals processes their luck."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nas2edge.bench.measure import Round, turns


@dataclass
class NoisyMachine:
    """Rounds of an old network, a new one, and the old one again, as `measure_round` would give them.

    Args:
        ratio: What the new network takes, in terms of the old one.
        seed: Draws the noise.
        jitter: Of a slice, relative.
        process: Of a process, relative: memory layout and the like.
        drift: Relative change of speed over a round, there and back at random.
        bursts: Share of slices that other work makes up to three times as slow, several in a row.
        round_s: What a round takes on the clock.
    """

    ratio: float
    seed: int = 0
    jitter: float = 0.01
    process: float = 0.004
    drift: float = 0.1
    bursts: float = 0.1
    round_s: float = 2.0
    cycles: int = 12
    now: float = 0.0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def clock(self) -> float:
        return self.now

    def round(self) -> Round:
        self.now += self.round_s
        truth = np.array([1.0, self.ratio, 1.0]) * np.exp(self.rng.normal(0.0, self.process, 3))
        slices = self.cycles * 6
        speed = self._speed(slices)
        times = np.zeros((3, self.cycles, 2))
        i = 0
        for cycle in range(self.cycles):
            seen = [0, 0, 0]
            for turn in turns(3, cycle):
                noise = np.exp(abs(self.rng.normal(0.0, self.jitter)))
                times[turn, cycle, seen[turn]] = 1e-3 * truth[turn] * speed[i] * noise
                seen[turn] += 1
                i += 1
        return Round(logs=np.log(times).mean(axis=2))

    def alone(self, ratio: float) -> float:
        """Seconds a run, the median over a while: what is usually compared."""
        luck = float(np.exp(self.rng.normal(0.0, self.process)))
        noise = np.exp(np.abs(self.rng.normal(0.0, self.jitter, 200)))
        return float(np.median(1e-3 * ratio * luck * self._speed(200) * noise))

    def _speed(self, n: int) -> np.ndarray:
        drift = np.cumsum(self.rng.normal(0.0, self.drift / np.sqrt(n), n))
        factor = np.exp(drift + self.rng.normal(0.0, self.drift))
        for start in np.flatnonzero(self.rng.random(n) < self.bursts / 4):
            factor[start : start + 4] *= self.rng.uniform(1.2, 3.0)
        return factor

"""What a search optimises, what it must keep to, and how both are written in messages.

>>> Constraint(metric="latency_ms", limit=20.0, device="jetson-orin-nano").describe()
'latency on jetson-orin-nano <= 20 ms'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas2edge.errors import InputError
from nas2edge.units import format_bytes, format_count, format_energy, format_latency

DEVICE_METRICS = ("latency_ms", "energy_mj")
LIMITED_METRICS = (*DEVICE_METRICS, "macs", "params", "size_bytes", "memory_bytes")
METRICS = ("accuracy", *LIMITED_METRICS)

_NAMES = {
    "accuracy": "accuracy",
    "latency_ms": "latency",
    "energy_mj": "energy",
    "macs": "MACs",
    "params": "parameters",
    "size_bytes": "model size",
    "memory_bytes": "activation memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric to be maximised or minimised.

    Args:
        metric: "accuracy", "latency_ms", "energy_mj", "macs", "params", "size_bytes" (four bytes a parameter) or
            "memory_bytes" (four bytes an activation value that must be held at the worst moment).
        direction: "max" or "min".
        device: The device of "latency_ms" and "energy_mj"; None for the others.

    Raises:
        InputError: The metric is unknown, or the device is missing or does not belong to it.
    """

    metric: str
    direction: Literal["max", "min"]
    device: str | None = None

    def __post_init__(self) -> None:
        _check_metric(self.metric, self.device, METRICS)
        if self.direction not in ("max", "min"):
            raise InputError(f"direction is {self.direction!r}; expected 'max' or 'min'")

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that less is better."""
        return -1.0 if self.direction == "max" else 1.0

    def describe(self) -> str:
        """Returns it as people read it, such as "accuracy (max)"."""
        return f"{_title(self.metric, self.device)} ({self.direction})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A limit that a metric must not exceed.

    Args:
        metric: "latency_ms", "energy_mj", "macs", "params", "size_bytes" or "memory_bytes".
        limit: The greatest value allowed, above 0.
        device: The device of "latency_ms" and "energy_mj"; None for the others.
        confidence: Probability with which a latency must keep the limit, its error taken as normal; 0.5 holds the
            limit on the prediction itself.

    Raises:
        InputError: The metric is unknown, the limit not positive, the confidence not from 0.5 to below 1 or not of a
            latency, or the device is missing or does not belong to it.
    """

    metric: str
    limit: float
    device: str | None = None
    confidence: float = 0.5

    def __post_init__(self) -> None:
        _check_metric(self.metric, self.device, LIMITED_METRICS)
        if not 0 < self.limit < float("inf"):
            raise InputError(f"the limit of {_title(self.metric, self.device)} is {self.limit}; expected a number > 0")
        if not 0.5 <= self.confidence < 1:
            raise InputError(f"the confidence is {self.confidence}; expected at least 0.5 and less than 1, such as 0.9")
        if self.confidence != 0.5 and self.metric != "latency_ms":
            raise InputError(
                f"the confidence is {self.confidence} but {_NAMES[self.metric]} has no error; leave it out"
            )

    @property
    def sigmas(self) -> float:
        """Standard errors that are added to a prediction before it is compared with the limit."""
        if self.confidence == 0.5:
            return 0.0
        from statistics import NormalDist

        return NormalDist().inv_cdf(self.confidence)

    def violation(self, value: float) -> float:
        """Returns by which share of the limit a value exceeds it; 0 when it is met."""
        return max(0.0, value / self.limit - 1.0)

    def describe(self) -> str:
        """Returns it as people read it, such as "MACs <= 300M"."""
        margin = f" at {100 * self.confidence:g} % confidence" if self.sigmas else ""
        return f"{_title(self.metric, self.device)} <= {format_metric(self.metric, self.limit)}{margin}"


def format_metric(metric: str, value: float) -> str:
    """Writes a metric's value with its unit."""
    if metric == "latency_ms":
        return format_latency(value)
    if metric == "energy_mj":
        return format_energy(value)
    if metric in ("size_bytes", "memory_bytes"):
        return format_bytes(value)
    return f"{value:.2f} %" if metric == "accuracy" else format_count(value)


def _title(metric: str, device: str | None) -> str:
    return f"{_NAMES[metric]} on {device}" if device else _NAMES[metric]


def _check_metric(metric: str, device: str | None, known: tuple[str, ...]) -> None:
    if metric not in known:
        raise InputError(f"the metric is {metric!r}; expected one of {', '.join(known)}")
    if (device is not None) != (metric in DEVICE_METRICS):
        needs = " and ".join(DEVICE_METRICS)
        raise InputError(f"the metric is {metric!r} and the device {device!r}; {needs} need one, the others none")

"""Limits before any search: whether they can be met at all, and whether they exclude anything.

For metrics that know their least and greatest value over the space (`AdditiveMetric` does, exactly), both answers are
certain and immediate. For others they are left unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nas2edge.errors import InfeasibleError
from nas2edge.pieces import Extreme
from nas2edge.search.any_space import AnySpace
from nas2edge.search.front import Candidate
from nas2edge.search.ledger import Vector
from nas2edge.search.objective import DEVICE_METRICS, Constraint, format_metric
from nas2edge.space import Codes, SubnetConfig

Metric = Callable[[Codes], Vector]
"""A metric of populations: (n, genes) to (n,)."""


@runtime_checkable
class Bounded(Protocol):
    """A metric that knows its extremes over the whole space."""

    def minimum(self) -> Extreme: ...
    def maximum(self) -> Extreme: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A constraint, and where it lies among the values that the space reaches.

    Args:
        constraint: The constraint.
        least: The least value of any sub-network; None where the metric cannot tell.
        greatest: The greatest value of any sub-network; None where the metric cannot tell.
    """

    constraint: Constraint
    least: float | None
    greatest: float | None

    @property
    def binds(self) -> bool | None:
        """Whether the limit excludes any sub-network; None where that is unknown."""
        return None if self.greatest is None else self.greatest > self.constraint.limit

    def describe(self) -> str:
        """Returns the constraint, and that it does not bind where that is so."""
        text = self.constraint.describe()
        if self.binds is not False or self.greatest is None:
            return text
        greatest = format_metric(self.constraint.metric, rounded_up(self.constraint.metric, self.greatest))
        return f"{text} does not bind: no sub-network of the space needs more than {greatest}"


def check_limits(space: AnySpace, constraints: Sequence[tuple[Constraint, Metric]]) -> tuple[Limit, ...]:
    """Returns the range of each constrained metric.

    Raises:
        InfeasibleError: No sub-network meets a constraint; names the one that is missed by most.
    """
    limits: list[Limit] = []
    missed: list[tuple[float, Constraint, Extreme]] = []
    for constraint, metric in constraints:
        least = metric.minimum() if isinstance(metric, Bounded) else None
        greatest = metric.maximum() if isinstance(metric, Bounded) else None
        limits.append(
            Limit(
                constraint=constraint,
                least=None if least is None else least.value,
                greatest=None if greatest is None else greatest.value,
            )
        )
        if least is not None and least.value > constraint.limit:
            missed.append((constraint.violation(least.value), constraint, least))
    if missed:
        _, constraint, least = max(missed, key=lambda entry: entry[0])
        raise InfeasibleError(_cannot_meet(space, constraint, least, n_others=len(missed) - 1))
    return tuple(limits)


def jointly_infeasible(
    space: AnySpace, constraints: Sequence[Constraint], closest: Candidate, *, examined: int
) -> InfeasibleError:
    """Returns the error for constraints that no examined sub-network meets, or meets together."""
    values = []
    for constraint in constraints:
        value = closest.value(constraint)
        over = constraint.violation(value)
        needed = format_metric(constraint.metric, rounded_up(constraint.metric, value))
        values.append(f"{constraint.describe()}: {needed}" + (f", {100 * over:.2g} % over" if over else ", met"))
    together = " all constraints together" if len(constraints) > 1 else f" {constraints[0].describe()}"
    return InfeasibleError(
        f"no sub-network of the space {space.name!r} was found that meets{together}, of {examined} "
        f"examined; the closest has {'; '.join(values)} (sub-network {summary(closest.subnet)}); "
        "loosen the limits that are over"
    )


def summary(subnet: object) -> str:
    """Writes a sub-network in one line: resolution, widths, depths, kernel sizes, expansion ratios.

    "r192 w16-16-24-32-64-112-192-216-1792 d1-3-3-3-3-3-1 k3-3-3-3-3-3-3 e1-4-4-4-4-6-6" is AlphaNet's A0.
    What another kind of space decodes to is written as it writes itself.
    """
    if not isinstance(subnet, SubnetConfig):
        return str(subnet)
    fields = {"w": subnet.width, "d": subnet.depth, "k": subnet.kernel_size, "e": subnet.expand_ratio}
    return " ".join([f"r{subnet.resolution}", *(key + "-".join(map(str, values)) for key, values in fields.items())])


def rounded_up(metric: str, value: float) -> float:
    """Rounds up to the digits that messages show, so that a value shown as reachable is so when asked for."""
    digits = 3 if metric in DEVICE_METRICS else 4
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    # A value that stands at a step but for its last bits stays there.
    return math.ceil(value / step - 1e-9) * step


def _cannot_meet(space: AnySpace, constraint: Constraint, least: Extreme, *, n_others: int) -> str:
    reachable = format_metric(constraint.metric, rounded_up(constraint.metric, least.value))
    others = f" ({n_others} more of the limits cannot be met either)" if n_others else ""
    return (
        f"no sub-network of the space {space.name!r} meets {constraint.describe()}: the least reachable is "
        f"{reachable}, by {summary(space.decode(least.codes)[0])}; allow at least {reachable}{others}"
    )

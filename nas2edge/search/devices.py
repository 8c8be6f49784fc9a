"""What a search knows of devices: latency with its error and measured share, and energy, each a metric of populations.

>>> devices = device_metrics(space, {"jetson-orin-nano": load_table("jetson-orin-nano")}, entries=[])
>>> devices.latency["jetson-orin-nano"](codes)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nas2edge.errors import InputError, TableError
from nas2edge.search.any_space import PlanMetric, PlannedSpace
from nas2edge.search.limits import Metric
from nas2edge.search.objective import Constraint, Objective
from nas2edge.space import SearchSpace

if TYPE_CHECKING:
    from nas2edge.latency.table import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMetrics:
    """Metrics of the whole space, by device.

    Args:
        latency: Milliseconds.
        sigma: Standard errors of the latency.
        share: Shares of the latency from measured rows.
        energy: Millijoules.
    """

    latency: dict[str, Metric] = field(default_factory=dict)
    sigma: dict[str, Metric] = field(default_factory=dict)
    share: dict[str, Metric] = field(default_factory=dict)
    energy: dict[str, Metric] = field(default_factory=dict)


def device_metrics(
    space: SearchSpace | PlannedSpace,
    latency: Mapping[str, Metric | LatencyTable],
    *,
    sigma: Mapping[str, Metric] | None = None,
    share: Mapping[str, Metric] | None = None,
    energy: Mapping[str, Metric] | None = None,
    entries: Iterable[Objective | Constraint] = (),
) -> DeviceMetrics:
    """Returns what is given, and what the latency tables among it state.

    Args:
        latency: By device, a table, or milliseconds of a population.
        sigma: Standard errors of latencies that are no tables.
        share: Measured shares of latencies that are no tables.
        energy: Millijoules of a population by device, where no table states them.
        entries: What is asked for, so that an energy that a table lacks is missed at once.

    Raises:
        TableError: Blocks of the space have no row in a table and nothing to estimate them from.
        InputError: Energy is asked for on a device whose table does not state it for all blocks.
    """
    found = DeviceMetrics(sigma=dict(sigma or {}), share=dict(share or {}), energy=dict(energy or {}))
    asked = {entry.device for entry in entries if entry.metric == "energy_mj"}
    for name, given in latency.items():
        if callable(given):
            found.latency[name] = given
        elif isinstance(space, PlannedSpace):
            _add_planned(found, name, given, space)
        else:
            _add_table(found, name, given, space, energy=name in asked)
    return found


def _add_table(found: DeviceMetrics, name: str, table: LatencyTable, space: SearchSpace, *, energy: bool) -> None:
    from nas2edge.latency.metrics import table_metrics

    metrics = table_metrics(table, space)
    found.latency[name], found.sigma[name], found.share[name] = metrics.latency, metrics.sigma, metrics.share
    if energy and not table.has_energy:
        raise InputError(
            f"the latency table {name!r} states no energy, so none can be limited or traded off there; measure it on a "
            "device with power sensors (nas2edge profile --pack), or leave energy out"
        )
    if table.has_energy:
        try:
            found.energy[name] = table.energy_metric(space)
        except TableError:  # some blocks have none, which matters only where energy is asked for
            if energy:
                raise


def _add_planned(found: DeviceMetrics, name: str, table: LatencyTable, space: PlannedSpace) -> None:
    found.latency[name] = PlanMetric(space, lambda layers: table.estimate(layers).ms)
    found.sigma[name] = PlanMetric(space, lambda layers: table.estimate(layers).sigma_ms)
    found.share[name] = PlanMetric(space, lambda layers: table.estimate(layers).measured_share)
    if table.has_energy:
        found.energy[name] = PlanMetric(space, table.energy_mj)

"""Candidates and the front of those that no other dominates.

>>> front = ParetoFront(objectives=objectives).add(candidate)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nas2edge.search.objective import Constraint, Objective
from nas2edge.search.pareto import is_on_front
from nas2edge.space import SubnetConfig

BYTES_PER_VALUE = 4  # fp32, as the networks are trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A sub-network with what is known of it.

    Args:
        subnet: The sub-network: a `SubnetConfig`, or what another kind of space decodes its codes to.
        accuracy: Top-1 in percent, as the search's accuracy source gave it: what it was compared by.
        macs: Multiply-accumulates for one image.
        params: Parameters in use.
        memory_bytes: Memory that activations need at the worst moment, in fp32; None where it was not counted.
        latency_ms: Latency by device.
        latency_sigma_ms: Its standard error by device, where the table states one.
        measured_share: Share of the latency that comes from measured rows, by device, where the table states it.
        energy_mj: Energy of one run by device, where the table states it.
        accuracy_sigma: Standard error of the accuracy, where it is predicted and states one of its own.
        measured_accuracy: Top-1 in percent that the supernet itself gave, where the accuracy is predicted and the
            sub-network was evaluated too.
    """

    subnet: SubnetConfig
    accuracy: float
    macs: int
    params: int
    memory_bytes: int | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    latency_sigma_ms: Mapping[str, float] = field(default_factory=dict)
    measured_share: Mapping[str, float] = field(default_factory=dict)
    energy_mj: Mapping[str, float] = field(default_factory=dict)
    accuracy_sigma: float | None = None
    measured_accuracy: float | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the parameters in fp32."""
        return BYTES_PER_VALUE * self.params

    def value(self, metric: Objective | Constraint) -> float:
        """Returns the value of an objective's or a constraint's metric; with the margin that a confidence asks for."""
        if metric.metric == "latency_ms":
            assert metric.device is not None, metric
            margin = metric.sigmas if isinstance(metric, Constraint) else 0.0
            return self.latency_ms[metric.device] + (margin and margin * self.latency_sigma_ms[metric.device])
        if metric.metric == "energy_mj":
            assert metric.device is not None, metric
            return self.energy_mj[metric.device]
        return float(getattr(self, metric.metric))

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, as in pareto.json."""
        devices = {
            name: {
                "latency_ms": self.latency_ms[name],
                "latency_sigma_ms": self.latency_sigma_ms.get(name),
                "measured_share": self.measured_share.get(name),
                **({"energy_mj": self.energy_mj[name]} if name in self.energy_mj else {}),
            }
            for name in self.latency_ms
        }
        own = {"accuracy_sigma": self.accuracy_sigma, "measured_accuracy": self.measured_accuracy}
        return {
            "id": self.subnet.id,
            "accuracy": self.accuracy,
            **({} if self.accuracy_sigma is None else own),
            "macs": self.macs,
            "params": self.params,
            "size_bytes": self.size_bytes,
            "memory_bytes": self.memory_bytes,
            "devices": devices,
            "subnet": self.subnet.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoFront:
    """Candidates of which none dominates another, in ascending order of their objectives (the least good first).

    Of candidates with equal objectives one stays, the one with the least genes, so that the front depends on which
    candidates were added, never on their order. Iterating yields the candidates.

    Args:
        objectives: What dominance means.
        candidates: The members; made by `add` and `extend`.
    """

    objectives: tuple[Objective, ...]
    candidates: tuple[Candidate, ...] = ()

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def add(self, candidate: Candidate) -> ParetoFront:
        """Returns the front with one more candidate considered."""
        return self.extend([candidate])

    def extend(self, candidates: Iterable[Candidate]) -> ParetoFront:
        """Returns the front with more candidates considered."""
        pool = sorted((*self.candidates, *candidates), key=self._sort_key)
        scores = np.array([self._scores(candidate) for candidate in pool]).reshape(len(pool), len(self.objectives))
        kept: list[Candidate] = []
        for candidate, on_front in zip(pool, is_on_front(scores), strict=True):
            if on_front and not (kept and self._scores(kept[-1]) == self._scores(candidate)):
                kept.append(candidate)
        return ParetoFront(objectives=self.objectives, candidates=tuple(kept))

    def _scores(self, candidate: Candidate) -> tuple[float, ...]:
        return tuple(objective.sign * candidate.value(objective) for objective in self.objectives)

    def _sort_key(self, candidate: Candidate) -> tuple[tuple[float, ...], Any]:
        subnet: Any = candidate.subnet
        genes: Any = repr(subnet)
        if isinstance(subnet, SubnetConfig):
            genes = ((subnet.resolution,), subnet.width, subnet.depth, subnet.kernel_size, subnet.expand_ratio)
        first, *others = self._scores(candidate)
        return (-first, *others), genes

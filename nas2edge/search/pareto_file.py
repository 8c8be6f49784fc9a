"""pareto.json: every point of a front, and what it takes to understand and repeat it (format "nas2edge.pareto").

>>> pareto_to_dict(result, origin)["points"][0]["accuracy"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas2edge._version import __version__
from nas2edge.search.limits import Limit
from nas2edge.search.run import Choice, SearchResult
from nas2edge.space import SearchSpace
from nas2edge.subnet_file import PARETO_FORMAT, SubnetFile, subnet_to_dict

FORMAT, VERSION = PARETO_FORMAT, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracySource:
    """Where a search's accuracies come from.

    Args:
        source: "predictor", "supernet" or "published-points".
        error: The standard error of the best one in points of top-1.
        note: What the error is, in a few words.
        images: That accuracies were measured on, those that a predictor was fitted to included; None for none.
    """

    source: str
    error: float
    note: str
    images: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """The latency table of a device.

    Args:
        kind: "measured", "derived" or "estimated".
        digest: Digest of its contents, "" where it has none.
    """

    kind: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a search stood on.

    Args:
        space: The space.
        accuracy: The accuracies.
        tables: The latency tables, by device.
        supernet: {"source": ..., "sha256": ...} of the weights; None without any.
    """

    space: SearchSpace
    accuracy: AccuracySource
    tables: Mapping[str, TableSource]
    supernet: Mapping[str, str] | None = None


def pareto_to_dict(result: SearchResult, origin: Origin) -> dict[str, Any]:
    """Returns the JSON form of a search's result."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "space": subnet_to_dict(SubnetFile(space=origin.space, subnet=result.best.subnet))["space"],
        "supernet": dict(origin.supernet) if origin.supernet else None,
        "devices": {name: asdict(table) for name, table in origin.tables.items()},
        "objectives": [asdict(objective) for objective in result.front.objectives],
        "constraints": [_limit_to_dict(limit) for limit in result.limits],
        "accuracy": asdict(origin.accuracy),
        "search": {
            "seed": result.seed,
            "population": result.population,
            "evaluations": result.evaluations,
            "examined": result.examined,
            "stop": result.stop,
            "algorithm": result.algorithm,
            "exactness": asdict(result.exactness) if result.exactness else None,
        },
        "convergence": asdict(result.convergence) if result.convergence else None,
        "best": result.best.subnet.id,
        "choices": [
            {"id": choice.candidate.subnet.id, "constraints": [asdict(one) for one in choice.constraints]}
            for choice in result.choices
        ],
        "points": [candidate.to_dict() for candidate in result.front],
        "tool": {"nas2edge": __version__},
    }


def chosen_subnet(result: SearchResult, origin: Origin, *, choice: Choice | None = None) -> SubnetFile:
    """Returns a choice, by default the first, as the contents of a subnet.json.

    The first device stands under the plain names, "latency_ms" and so on; further ones follow as "latency_ms:DEVICE".
    """
    choice = choice or result.choices[0]
    best, first = choice.candidate, next(iter(origin.tables), None)
    predicted: dict[str, Any] = {
        "accuracy": best.accuracy,
        "accuracy_source": origin.accuracy.source,
        "accuracy_error": origin.accuracy.error if best.accuracy_sigma is None else best.accuracy_sigma,
        **({} if best.measured_accuracy is None else {"measured_accuracy": best.measured_accuracy}),
        "macs": best.macs,
        "params": best.params,
        "size_bytes": best.size_bytes,
        "memory_bytes": best.memory_bytes,
    }
    for name in origin.tables:
        suffix = "" if name == first else f":{name}"
        predicted |= {
            f"latency_ms{suffix}": best.latency_ms[name],
            f"latency_sigma_ms{suffix}": best.latency_sigma_ms.get(name),
            f"latency_kind{suffix}": origin.tables[name].kind,
            f"measured_share{suffix}": best.measured_share.get(name),
            **({f"energy_mj{suffix}": best.energy_mj[name]} if name in best.energy_mj else {}),
        }
    constraints = {}
    for one in choice.constraints:
        suffix = "" if one.device in (None, first) else f":{one.device}"
        constraints[one.metric + suffix] = one.limit
        if one.sigmas:
            constraints[f"confidence{suffix}"] = one.confidence
    return SubnetFile(
        space=origin.space,
        subnet=best.subnet,
        supernet=origin.supernet,
        device=first,
        constraints=constraints,
        predicted=predicted,
    )


def _limit_to_dict(limit: Limit) -> dict[str, Any]:
    return {**asdict(limit.constraint), "least": limit.least, "greatest": limit.greatest, "binds": limit.binds}

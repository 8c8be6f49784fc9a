"""One HTML page of a search, which opens offline: the front, the chosen sub-network, where its milliseconds go.

>>> page = search_page(json.loads(Path("pareto.json").read_text()), tables={"jetson-orin-nano": table})
>>> write_text(Path("report.html"), page)

The page is a template, a style sheet and a script, which lie in the folder page/, and the data as JSON. All text of the
data reaches the page as text, never as HTML, and the page's own policy forbids it to load anything or to run another
script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from nas2edge.errors import FormatError, InputError
from nas2edge.latency.table import STATUSES, LatencyParts, LatencyTable
from nas2edge.plan import plan
from nas2edge.report.blocks import describe_block, distinct_blocks, split_blocks
from nas2edge.report.front_data import (
    ACCURACY_ORIGINS,
    EXACT,
    Axis,
    Gene,
    axes_of,
    check_document,
    choices_of,
    chosen_ids,
    document_space,
    genes_of,
    is_staircase,
    space_name,
    thinned,
)
from nas2edge.space import SearchSpace, SubnetConfig

SCRIPT_PARTS = ("base", "front", "selected", "blocks", "genes", "course", "start")
MAX_POINTS = 1200
MAX_DOMINATED = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """How a search came nearer to its front.

    Args:
        evaluations: Accuracies evaluated so far, ascending.
        hypervolume: Hypervolume of the front found so far, in any one unit; the page shows shares of the last.

    Raises:
        InputError: The two are not of one length, or empty, or the evaluations do not ascend.
    """

    evaluations: Sequence[int]
    hypervolume: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.evaluations) != len(self.hypervolume) or not len(self.evaluations):
            raise InputError(
                f"convergence has {len(self.evaluations)} evaluations and {len(self.hypervolume)} hypervolumes; "
                "expected as many of both, and at least one"
            )
        if list(self.evaluations) != sorted(set(self.evaluations)):
            raise InputError("the evaluations of the convergence do not ascend; give each count once, in order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dominated:
    """Sub-networks that were evaluated and are not on the front.

    Args:
        accuracy: Their accuracies in percent.
        values: Their other metrics, by (metric, device): ("latency_ms", "pixel-6") or ("macs", None).
        total: How many there were, if these are a sample; by default as many as these.

    Raises:
        InputError: A metric has not one value for each accuracy.
    """

    accuracy: Sequence[float]
    values: Mapping[tuple[str, str | None], Sequence[float]]
    total: int | None = None

    def __post_init__(self) -> None:
        for key, column in self.values.items():
            if len(column) != len(self.accuracy):
                raise InputError(
                    f"dominated points have {len(self.accuracy)} accuracies and {len(column)} values of {key}; "
                    "expected one each"
                )


def search_page(
    pareto: Mapping[str, Any],
    *,
    tables: Mapping[str, LatencyTable] | None = None,
    convergence: Convergence | None = None,
    dominated: Dominated | None = None,
    subnet_path: str | Sequence[str] = "subnet.json",
    command: str = "",
) -> str:
    """Returns the page of a search as one HTML text.

    Args:
        pareto: A pareto.json as `nas2edge search` writes it (format "nas2edge.pareto").
        tables: Latency tables by device, for the milliseconds of every block; a device without one, or whose table is
            not the one that the search used, gets a note instead.
        convergence: The search's course; by default what the document has under "convergence", if anything.
        dominated: Points to draw faintly; at most `MAX_DOMINATED` of them, at even steps, are drawn.
        subnet_path: Where the chosen sub-network was written, for the command to go on; several for several choices,
            in the document's order.
        command: The command that searched, for the reader to repeat.

    Raises:
        FormatError: The document is of another format, or lacks an entry that the page needs.
        UnknownNameError: The document's space is unknown.
        SubnetError: A point lies outside the space.
        TableError: A table has no answer for a block.
    """
    check_document(pareto)
    space = document_space(pareto)
    points = thinned(pareto["points"], chosen_ids(pareto), MAX_POINTS)
    ids = [point["id"] for point in points]
    axes = axes_of(pareto)
    if not axes:
        raise FormatError("pareto.json: its points share no metric beside accuracy; expected latency_ms or macs")
    genes = genes_of(pareto, space)
    blocks = _blocks(pareto, space, points, tables or {})
    data = {
        "space": {"name": space_name(pareto), "raw": pareto["space"]},
        "accuracy": pareto["accuracy"] | {"origin": _accuracy_origin(pareto["accuracy"].get("source"))},
        "axes": [_axis(axis, pareto) for axis in axes],
        "genes": [{"field": gene.field, "index": gene.index, "choices": gene.choices} for gene in genes],
        "points": [_point(point, axes, genes, pareto) for point in points],
        "members": blocks["members"],
        "blocks": blocks["names"],
        "devices": blocks["devices"],
        "statuses": STATUSES,
        "best": ids.index(pareto["best"]),
        "choices": _choices(pareto, ids, axes, [subnet_path] if isinstance(subnet_path, str) else list(subnet_path)),
        "total": len(pareto["points"]),
        "convergence": _convergence(convergence, pareto),
        "dominated": _dominated(dominated, axes),
        "facts": _facts(pareto, axes),
        "export": {"weights": bool(pareto.get("supernet")), "command": command},
        "subnet_file": {
            "supernet": pareto.get("supernet"),
            "device": next(iter(pareto["devices"]), None),
            "constraints": _constraints(pareto),
        },
    }
    return _fill(data, title=_title(pareto), lead=_lead(pareto, axes))


def table_notes(pareto: Mapping[str, Any], tables: Mapping[str, LatencyTable]) -> dict[str, str]:
    """Returns, for each device whose milliseconds cannot be split by block, why."""
    notes = {}
    for name, entry in pareto["devices"].items():
        if name not in tables:
            notes[name] = "its latency table was not at hand, so its milliseconds are not split by block"
        elif entry.get("digest") and tables[name].digest != entry["digest"]:
            notes[name] = (
                f"its latency table has changed since the search (digest {tables[name].digest}, then "
                f"{entry['digest']}), so its milliseconds are not split by block"
            )
    return notes


def _axis(axis: Axis, pareto: Mapping[str, Any]) -> dict[str, Any]:
    values = [(axis.value(point), point["accuracy"]) for point in pareto["points"]]
    return {
        "metric": axis.metric,
        "device": axis.device,
        "title": axis.title,
        "unit": axis.unit,
        "origin": axis.origin,
        "limits": [[limit, axis.format(limit)] for limit in axis.limits],
        "staircase": is_staircase(values),
    }


def _choices(
    pareto: Mapping[str, Any], ids: Sequence[str], axes: Sequence[Axis], files: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns each chosen point with its limits and the file that it was written to, "" where it was not."""
    return [
        {
            "point": ids.index(entry["id"]),
            "limits": [_limit(limit, axes) for limit in entry["constraints"]],
            "file": files[i] if i < len(files) else "",
        }
        for i, entry in enumerate(choices_of(pareto))
    ]


def _point(
    point: Mapping[str, Any], axes: Sequence[Axis], genes: Sequence[Gene], pareto: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "id": point["id"],
        "accuracy": _rounded(point["accuracy"]),
        "error": _rounded(point.get("accuracy_sigma", pareto["accuracy"].get("error"))),
        "measured": _measured(point.get("measured_accuracy"), pareto["accuracy"].get("images")),
        "source": point.get("accuracy_source"),
        "origin": _accuracy_origin(point.get("accuracy_source", pareto["accuracy"].get("source"))),
        "values": [_rounded(axis.value(point)) for axis in axes],
        "sigmas": [_rounded(axis.sigma(point)) for axis in axes],
        "shares": [_rounded(point["devices"].get(name, {}).get("measured_share")) for name in pareto["devices"]],
        "genes": [gene.value(point["subnet"]) for gene in genes],
    }


def _measured(accuracy: Any, images: Any) -> list[Any] | None:
    """What the supernet gave for a point whose accuracy is predicted: the accuracy and its standard error."""
    if accuracy is None:
        return None
    return [_rounded(accuracy), _rounded(math.sqrt(accuracy * (100.0 - accuracy) / images)) if images else None]


def _blocks(
    pareto: Mapping[str, Any],
    space: SearchSpace,
    points: Sequence[Mapping[str, Any]],
    tables: Mapping[str, LatencyTable],
) -> dict[str, Any]:
    plans = [plan(space, SubnetConfig.from_dict(point["subnet"])) for point in points]
    layers, members = distinct_blocks(plans)
    notes = table_notes(pareto, tables)
    devices: list[dict[str, Any]] = []
    for name, entry in pareto["devices"].items():
        device: dict[str, Any] = {"name": name, "kind": str(entry.get("kind", "")), "note": notes.get(name, "")}
        if name in tables and name not in notes:
            split = split_blocks(plans, tables[name])
            device["rows"] = [
                [_rounded(block.ms), _rounded(block.rel_sigma), STATUSES.index(block.status)] for block in split.blocks
            ]
            device["slopes"] = [_rounded(slope) for slope in split.slopes]
            device["beyond"] = {
                name: [_rounded(ms) for ms in by_plan]
                for name, by_plan in zip(LatencyParts._fields, zip(*split.parts, strict=True), strict=True)
                if name != "blocks" and any(by_plan)
            }
            device["facts"] = _table_facts(tables[name])
        devices.append(device)
    names = [[layer.name, describe_block(layer), layer.key] for layer in layers]
    return {"names": names, "members": members, "devices": devices}


def _table_facts(table: LatencyTable) -> list[list[str]]:
    facts = [["table", f"{table.kind}, {table.date}"], ["runs on", table.device.label], ["source", table.source]]
    if table.validation:
        worst = max(table.validation, key=lambda validation: validation.mape)
        facts.append(["error", f"{worst.mape:.2g} % on {worst.nets} networks of {worst.space} that played no part"])
    else:
        facts.append(["error", f"± {100 * table.rel_sigma:.2g} % expected for a whole network, one sigma"])
    facts += [["licence", table.licence], ["digest", table.digest]]
    return [[name, text] for name, text in facts if text]


def _facts(pareto: Mapping[str, Any], axes: Sequence[Axis]) -> list[list[str]]:
    search, supernet = pareto["search"], pareto.get("supernet")
    ends = {
        "budget": "all evaluations were spent",
        "exhausted": "the whole space was seen, so the front is exact",
        "stalled": "new sub-networks that keep the limits could not be found",
    }
    facts = [["space", space_name(pareto)]]
    facts.append(["weights", f"{supernet['source']} (SHA-256 {str(supernet['sha256'])[:12]}…)" if supernet else "none"])
    facts += [["limit", _limit(entry, axes)] for entry in pareto["constraints"]]
    for name, text in (("evaluations", "accuracies evaluated"), ("examined", "candidates examined")):
        if isinstance(search.get(name), int):
            facts.append([text, f"{search[name]:,}"])
    facts.append(["ended", ends.get(search.get("stop"), str(search.get("stop", "unknown")))])
    facts += [[name, str(search[name])] for name in ("algorithm", "population", "seed") if name in search]
    version = pareto.get("tool", {}).get("nas2edge")
    return [*facts, ["made with", f"nas2edge {version}"]] if version else facts


def _limit(entry: Mapping[str, Any], axes: Sequence[Axis]) -> str:
    """A limit with what the space reaches, where that is known."""
    key = (entry.get("metric"), entry.get("device"))
    axis = next((axis for axis in axes if (axis.metric, axis.device) == key), None)
    axis = axis or Axis(metric=str(key[0]), device=key[1], origin=EXACT)
    text = f"{axis.title} ≤ {axis.format(entry['limit'])}"
    least, greatest = entry.get("least"), entry.get("greatest")
    if least is None or greatest is None:
        return text
    free = "; it does not bind" if entry.get("binds") is False else ""
    return f"{text} (the space: {axis.format(least)} to {axis.format(greatest)}{free})"


def _constraints(pareto: Mapping[str, Any]) -> dict[str, float]:
    """As `subnet.json` has them: the first device under the plain name."""
    first = next(iter(pareto["devices"]), None)
    return {
        entry["metric"] + ("" if entry.get("device") in (None, first) else f":{entry['device']}"): entry["limit"]
        for entry in pareto["constraints"]
    }


def _accuracy_origin(source: Any) -> str:
    return ACCURACY_ORIGINS.get(str(source), "estimated")


def _convergence(given: Convergence | None, pareto: Mapping[str, Any]) -> dict[str, Any] | None:
    raw = pareto.get("convergence")
    if given is None and isinstance(raw, dict):
        given = Convergence(evaluations=raw.get("evaluations", ()), hypervolume=raw.get("hypervolume", ()))
    if given is None:
        return None
    return {
        "evaluations": [int(n) for n in given.evaluations],
        "hypervolume": [_rounded(value, digits=8) for value in given.hypervolume],
    }


def _dominated(given: Dominated | None, axes: Sequence[Axis]) -> dict[str, Any] | None:
    if given is None or not len(given.accuracy):
        return None
    n = len(given.accuracy)
    drawn = range(n) if n <= MAX_DOMINATED else [i * n // MAX_DOMINATED for i in range(MAX_DOMINATED)]
    columns = [given.values.get((axis.metric, axis.device)) for axis in axes]
    return {
        "total": n if given.total is None else given.total,
        "accuracy": [_rounded(given.accuracy[i], digits=4) for i in drawn],
        "values": [None if column is None else [_rounded(column[i], digits=4) for i in drawn] for column in columns],
    }


def _title(pareto: Mapping[str, Any]) -> str:
    devices = " and ".join(pareto["devices"])
    return f"{space_name(pareto)} for {devices}" if devices else f"{space_name(pareto)}, accuracy against MACs"


def _lead(pareto: Mapping[str, Any], axes: Sequence[Axis]) -> str:
    n = len(pareto["points"])
    limits = [f"{axis.title} ≤ {axis.format(axis.limits[-1])}" for axis in axes if axis.limits]
    within = f" within {' and '.join(limits)}" if limits else ""
    found = "One sub-network is" if n == 1 else f"{n:,} sub-networks are"
    n = len(chosen_ids(pareto))
    chosen = (
        "The most accurate one is chosen" if n == 1 else f"{n} are chosen, each the most accurate one within its limits"
    )
    return (
        f"{found} worth a choice{within}: no other that was found is better in every respect. "
        f"{chosen}; select any other to see it."
    )


def _fill(data: Mapping[str, Any], *, title: str, lead: str) -> str:
    folder = files("nas2edge.report") / "page"
    template, style, *parts = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "style.css", *(f"{part}.js" for part in SCRIPT_PARTS))
    )
    script = '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"
    # A "<" in a text of the data could end its element.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(template).substitute(
        title=html.escape(title), lead=html.escape(lead), style=style, script=script, data=text, digest=digest
    )


def _rounded(value: Any, *, digits: int = 6) -> Any:
    """Whole numbers stay; others keep what a page can show, as numbers of Python."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{float(value):.{digits}g}")

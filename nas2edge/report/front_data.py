"""What a page needs of a pareto.json, checked: points with their genes, axes to draw them on, limits.

Metrics are not listed here: whatever number every point carries, plain or by device, becomes an axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nas2edge.errors import FormatError
from nas2edge.space import SearchSpace, space_from_dict
from nas2edge.spaces import load_space
from nas2edge.units import format_count, format_latency

FORMAT, VERSION = "nas2edge.pareto", 1
UNITS = {"latency_ms": "ms", "energy_mj": "mJ"}
TITLES = {"latency_ms": "latency", "energy_mj": "energy", "macs": "MACs", "params": "parameters",
          "size_bytes": "model size in bytes", "memory_bytes": "activation memory in bytes"}  # fmt: skip
MEASURED, ESTIMATED, EXACT = "measured", "estimated", "exact"
ACCURACY_ORIGINS = {"supernet": MEASURED, "predictor": ESTIMATED, "published-points": ESTIMATED}

_SUFFIXES = ("_sigma_ms", "_sigma_mj", "_share", "_sigma", "_accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Something to draw accuracy against.

    Args:
        metric: Its key in the document, such as "latency_ms" or "macs".
        device: The device of a metric that has one.
        origin: "measured", "derived", "estimated" or "exact".
        limits: The greatest values allowed, ascending; several where there is a choice for each, none without a limit.
    """

    metric: str
    device: str | None
    origin: str
    limits: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        name = TITLES.get(self.metric, self.metric.replace("_", " "))
        return f"{name} on {self.device}" if self.device else name

    @property
    def unit(self) -> str:
        return UNITS.get(self.metric, "")

    def format(self, value: float) -> str:
        """Writes a value with its unit."""
        if self.metric == "latency_ms":
            return format_latency(value)
        return f"{format_count(value)} {self.unit}".strip()

    def value(self, point: Mapping[str, Any]) -> Any:
        """Returns the value of a point of the document; None if it has none."""
        return (point if self.device is None else point.get("devices", {}).get(self.device, {})).get(self.metric)

    def sigma(self, point: Mapping[str, Any]) -> Any:
        """Returns the standard error of a point's value; None if there is none."""
        if self.device is None:
            return None
        stem, _, unit = self.metric.rpartition("_")
        return point.get("devices", {}).get(self.device, {}).get(f"{stem}_sigma_{unit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gene:
    """One choice of a sub-network.

    Args:
        field: Field of the sub-network, such as "width".
        index: Place in the field's list; None for a field that is one number.
        choices: Its values, ascending.
    """

    field: str
    index: int | None
    choices: tuple[int, ...]

    def value(self, subnet: Mapping[str, Any]) -> int:
        value = subnet[self.field] if self.index is None else subnet[self.field][self.index]
        return int(value)


def check_document(pareto: Mapping[str, Any]) -> None:
    """Checks what the page relies on.

    Raises:
        FormatError: The document is of another format or version, lacks an entry, or names a best point it lacks.
    """
    if (pareto.get("format"), pareto.get("version")) != (FORMAT, VERSION):
        raise FormatError(
            f"the document is {pareto.get('format')!r} version {pareto.get('version')!r}; "
            f"expected {FORMAT!r} version {VERSION}, as nas2edge search --front writes it"
        )
    kinds: dict[str, type | tuple[type, ...]] = {
        "space": (str, dict), "devices": dict, "objectives": list, "constraints": list, "accuracy": dict,
        "search": dict, "best": str, "points": list,
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(pareto.get(name), kind):
            raise FormatError(f"pareto.json: {name!r} is {_short(pareto.get(name))}; write the file again with: "
                              "nas2edge search")  # fmt: skip
    for i, point in enumerate(pareto["points"]):
        _check_point(point, where=f"pareto.json: points[{i}]")
    ids = {point["id"] for point in pareto["points"]}
    if pareto["best"] not in ids:
        raise FormatError(f"pareto.json: 'best' is {_short(pareto['best'])}, which is the id of no point")
    for i, choice in enumerate(pareto.get("choices") or []):
        if (
            not isinstance(choice, dict)
            or choice.get("id") not in ids
            or not isinstance(choice.get("constraints"), list)
        ):
            raise FormatError(
                f"pareto.json: choices[{i}] is {_short(choice)}; expected the id of a point, and its constraints"
            )
    shapes = {tuple((gene.field, gene.index) for gene in _flat(point["subnet"])) for point in pareto["points"]}
    if len(shapes) > 1:
        raise FormatError("pareto.json: the sub-networks of its points have different fields; expected one space")


def document_space(pareto: Mapping[str, Any]) -> SearchSpace:
    """Returns the space of the document.

    Raises:
        UnknownNameError: It is named and unknown.
        SpaceError: It is written out and contradicts itself.
    """
    raw = pareto["space"]
    return space_from_dict(raw) if isinstance(raw, dict) else load_space(raw)


def space_name(pareto: Mapping[str, Any]) -> str:
    """Returns what the document's space is called."""
    raw = pareto["space"]
    return str(raw.get("name", "a space of one's own")) if isinstance(raw, dict) else str(raw)


def axes_of(pareto: Mapping[str, Any]) -> list[Axis]:
    """Returns every metric beside accuracy that all points carry: the search's objectives first."""
    objectives = [(entry.get("metric"), entry.get("device")) for entry in pareto["objectives"]]
    first = pareto["points"][0]
    keys = [
        *objectives,
        *((name, device) for device, values in first["devices"].items() for name in values),
        *((name, None) for name in first),
    ]
    limits: dict[tuple[Any, Any], set[float]] = {}
    for entry in pareto["constraints"]:
        limits.setdefault((entry.get("metric"), entry.get("device")), set()).add(entry["limit"])
    axes = [
        Axis(
            metric=metric,
            device=device,
            origin=_origin(pareto, device),
            limits=tuple(sorted(limits.get((metric, device), ()))),
        )
        for metric, device in dict.fromkeys(keys)
        if isinstance(metric, str) and metric != "accuracy" and not metric.endswith(_SUFFIXES)
    ]
    return [axis for axis in axes if all(_is_number(axis.value(point)) for point in pareto["points"])]


def genes_of(pareto: Mapping[str, Any], space: SearchSpace | None) -> list[Gene]:
    """Returns the genes of the points with their choices: the space's where it is known, else those that occur."""
    genes = _flat(pareto["points"][0]["subnet"])
    known = dict(zip(space.genes, space.choices, strict=True)) if space else {}

    def choices(gene: Gene) -> tuple[int, ...]:
        name = gene.field if gene.index is None else f"{gene.field}.{gene.index}"
        return known.get(name) or tuple(sorted({gene.value(point["subnet"]) for point in pareto["points"]}))

    return [Gene(field=gene.field, index=gene.index, choices=choices(gene)) for gene in genes]


def choices_of(pareto: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the choices of the document with their limits: where it lists none, the best point within all limits."""
    choices = pareto.get("choices")
    return list(choices) if choices else [{"id": pareto["best"], "constraints": pareto["constraints"]}]


def chosen_ids(pareto: Mapping[str, Any]) -> list[str]:
    """Returns the ids of the chosen points, each once, the best first."""
    return list(dict.fromkeys([pareto["best"], *(choice["id"] for choice in choices_of(pareto))]))


def thinned(points: Sequence[Mapping[str, Any]], chosen: Sequence[str], most: int) -> list[Mapping[str, Any]]:
    """Returns at most `most` points at even steps, the chosen ones among them."""
    if len(points) <= most:
        return list(points)
    kept = {i for i, point in enumerate(points) if point["id"] in chosen}
    even = {round(i * (len(points) - 1) / (most - 1)) for i in range(most)} - kept
    # Of the even steps, those nearest to a chosen point make place for it.
    by_distance = sorted(even, key=lambda i: min((abs(i - j) for j in kept), default=0), reverse=True)
    return [points[i] for i in sorted(kept | set(by_distance[: most - len(kept)]))]


def is_staircase(values: Sequence[tuple[float, float]]) -> bool:
    """Whether accuracy rises with the other metric all along: a front of two objectives."""
    return all(a[1] < b[1] for a, b in pairwise(sorted(values)))


def _check_point(point: Any, *, where: str) -> None:
    if not isinstance(point, dict) or not isinstance(point.get("subnet"), dict) or not point["subnet"]:
        raise FormatError(f"{where} is {_short(point)}; expected an object with id, accuracy, devices and subnet")
    if not isinstance(point.get("id"), str) or not _is_number(point.get("accuracy")):
        raise FormatError(f"{where}: id is {_short(point.get('id'))} and accuracy {_short(point.get('accuracy'))}; "
                          "expected a text and a number")  # fmt: skip
    devices = point.get("devices")
    if not isinstance(devices, dict) or not all(isinstance(entry, dict) for entry in devices.values()):
        raise FormatError(f"{where}: devices is {_short(devices)}; expected an object of objects")
    for name, value in point["subnet"].items():
        if not all(isinstance(entry, int) for entry in (value if isinstance(value, list) else [value])):
            raise FormatError(f"{where}: subnet.{name} is {_short(value)}; expected whole numbers")


def _flat(subnet: Mapping[str, Any]) -> list[Gene]:
    def walk() -> Iterator[Gene]:
        for name, value in subnet.items():
            if isinstance(value, list):
                yield from (Gene(field=name, index=i, choices=()) for i in range(len(value)))
            else:
                yield Gene(field=name, index=None, choices=())

    return list(walk())


def _origin(pareto: Mapping[str, Any], device: str | None) -> str:
    return EXACT if device is None else str(pareto["devices"].get(device, {}).get("kind", ESTIMATED))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Profiles of one network, layer by layer: trtexec and TensorFlow Lite's benchmark_model.

A layer belongs to the block whose name its own name contains: `nas2edge export` names nodes by their blocks, and
runtimes keep these names when they fuse. A profiler taxes every layer (a sum of layers is 1.1 to 1.8 times the time of
a network through TensorRT), so the network's time without it should be given too.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from nas2edge.errors import FormatError, TableError
from nas2edge.latency.foreign import Foreign, measured_row, number, read_text
from nas2edge.plan import LayerSpec

MAX_UNASSIGNED = 0.1

_NOTE = "by a profiler, which taxes every layer; a slope other than 1 comes from the network's time without it"


def read_trtexec(path: Path, layers: Sequence[LayerSpec]) -> Foreign:
    """Reads the JSON of trtexec --exportProfile; medians where it has them.

    Raises:
        FormatError: The file cannot be read or is no profile, or its names are not those of the network's blocks.
    """
    try:
        raw = json.loads(read_text(path))
    except ValueError as err:
        raise FormatError(f"{path} does not parse: {err}") from err
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise FormatError(f"{path} is no profile of trtexec: expected a list of layers")
    runs = next((entry["count"] for entry in raw if "count" in entry), 1)
    timed = []
    for entry in (entry for entry in raw if "name" in entry):
        ms = entry.get("medianMs", entry.get("averageMs"))
        if isinstance(ms, bool) or not isinstance(ms, int | float):
            raise FormatError(f"{path}: layer {entry['name']!r} has neither medianMs nor averageMs")
        timed.append((str(entry["name"]), float(ms)))
    return _by_block(path, timed, layers, format="trtexec-profile", runs=runs if isinstance(runs, int) else 1)


def read_tflite_csv(path: Path, layers: Sequence[LayerSpec]) -> Foreign:
    """Reads benchmark_model's operator profile as CSV: the table by order of execution.

    Raises:
        FormatError: The file cannot be read or is no profile, or its names are not those of the network's blocks.
    """
    timed: list[tuple[str, float]] = []
    columns: list[str] = []
    for line in read_text(path).splitlines():
        cells = [cell.strip().strip("[]") for cell in line.split(",")]
        if not columns:
            lowered = [cell.lower() for cell in cells]
            if "node type" in lowered and "name" in lowered:
                columns = lowered
        elif len(cells) < len(columns):
            break  # what follows are other orders of the same layers
        else:
            # The name comes last and may hold commas; older files call the mean "avg_ms", newer ones "avg ms".
            named = dict(zip(columns, [*cells[: len(columns) - 1], ",".join(cells[len(columns) - 1 :])], strict=True))
            mean = next((named[name] for name in ("avg_ms", "avg ms") if name in named), None)
            try:
                timed.append((named["name"], float(mean or "")))
            except ValueError as err:
                raise FormatError(f"{path}: {line!r} has no avg_ms") from err
    if not timed:
        raise FormatError(f"{path} is no operator profile: it has no table with 'node type' and 'name'")
    return _by_block(path, timed, layers, format="tflite-csv", runs=1)


def _by_block(
    path: Path, timed: Sequence[tuple[str, float]], layers: Sequence[LayerSpec], *, format: str, runs: int
) -> Foreign:
    # Longest first, so that blocks.10 is not taken for blocks.1.
    names = sorted((layer.name for layer in layers), key=len, reverse=True)
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b(?!\d)" for name in names))
    sums: dict[str, float] = defaultdict(float)
    not_mapped: dict[str, str] = {}
    lost = 0.0
    for name, ms in timed:
        if match := pattern.search(name.replace("/", ".")):
            sums[match[0]] += ms
        else:
            not_mapped[name] = f"no block of the network is in its name ({ms:.4g} ms)"
            lost += ms
    total = sum(ms for _, ms in timed)
    absent = [layer.name for layer in layers if layer.name not in sums]
    if absent or lost > MAX_UNASSIGNED * total:
        raise FormatError(
            f"{path}: {lost / total if total else 1.0:.0%} of the time is in layers that name no block of the network, "
            f"and {len(absent)} blocks have no layer; profile the model that nas2edge export wrote for this sub-network"
        )
    by_key: dict[str, list[tuple[LayerSpec, float]]] = defaultdict(list)
    for layer in layers:
        by_key[layer.key].append((layer, sums[layer.name]))
    try:
        rows = tuple(
            measured_row(same[0][0], number(sum(ms for _, ms in same) / len(same), where=same[0][0].name),
                         n=max(1, runs) * len(same)) for same in by_key.values()
        )  # fmt: skip
    except TableError as err:
        raise FormatError(f"{path}: {err}") from err
    return Foreign(format=format, rows=rows, not_mapped=not_mapped, note=_NOTE)

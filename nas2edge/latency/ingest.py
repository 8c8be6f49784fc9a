"""Reading what the script of a pack measured: a table as if it had been measured here, by the same rules.

>>> table = ingest(Path("results.tar.gz"), spaces, name="my-board", date="2026-01-31")  # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nas2edge.device import Device
from nas2edge.errors import FormatError
from nas2edge.latency.fill import fill_rows
from nas2edge.latency.guard import Floor
from nas2edge.latency.items import border_id, rows_from, shapes_of
from nas2edge.latency.measure import Request, calibrate
from nas2edge.latency.pack import FORMAT, VERSION, packed_items
from nas2edge.latency.pack_script import whole_seconds
from nas2edge.latency.protocol import Options, Visit, summarise
from nas2edge.latency.roofline import MIN_ROWS
from nas2edge.latency.table import MEASURED, LatencyTable, TableRow
from nas2edge.latency.tools import TOOLS, Tool, ToolTimes
from nas2edge.space import SearchSpace

OPTIONS = Options(drift_limit=0.05, spread_limit=0.05)
"""Limits for other machines' tools, which time less often than the protocol here."""

_UNCALIBRATED_REL_SIGMA = 0.1
_LEAST_POWER_SAMPLES = 5
_RUNNING_SHARE = 0.6  # of the seconds of a run, counted from the call's end
_SAMPLE_S = 0.07  # between two readings of the script, at least
_ROUNDING = 1 / math.sqrt(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """A table from a pack's results.

    Args:
        table: The table.
        failed: Models that gave no time, with the reason.
        system: What the device said of itself.
    """

    table: LatencyTable
    failed: Mapping[str, str]
    system: Mapping[str, str]


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns the manifest of results.

    Raises:
        FormatError: The file is no results of a pack.
    """
    files = _read(path)
    try:
        raw = json.loads(files["manifest.json"])
    except (KeyError, ValueError) as err:
        raise FormatError(f"{path} holds no manifest.json of a pack; give the results.tar.gz that its run.sh wrote, or "
                          "the folder results") from err  # fmt: skip
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or raw.get("version") != VERSION:
        raise FormatError(f"{path} is no {FORMAT} of version {VERSION}")
    return raw


def ingest(path: Path, spaces: Sequence[SearchSpace], *, name: str, date: str) -> Ingested:
    """Returns the table that results come to.

    Args:
        path: The results.tar.gz, or the folder results.
        spaces: The spaces that the pack was written for, in its order.
        name: Name of the table.
        date: ISO date.

    Raises:
        FormatError: The file is no results, or of other spaces than these, or its tool computed in another precision;
            or fewer than 24 blocks were measured.
    """
    manifest, files = read_manifest(path), _read(path)
    if [space.digest for space in spaces] != [space["digest"] for space in manifest["spaces"]]:
        raise FormatError(f"{path} was measured for other definitions of its spaces; write the pack anew")
    tool = TOOLS[manifest["tool"]]
    request = Request(spaces=tuple(spaces), date=date, seed=manifest["seed"], nets=manifest["nets"], options=OPTIONS)
    items, nets = packed_items(request)
    ids = {packed.name: packed.item.id for packed in items}
    if {entry["name"]: entry["id"] for entry in manifest["items"]} != ids:
        raise FormatError(f"{path} was packed by nas2edge {manifest['nas2edge']}, which counts blocks otherwise; write "
                          "the pack anew")  # fmt: skip
    system = _system(files.get("system-start.txt", ""))
    _check_precision(tool, manifest["precision"], system)
    visits, powers, failed = _visits(files, ids, tool, seconds=whole_seconds(manifest["seconds"]))
    floor = _floor(visits)
    found = {key: summarise(entries, floor=floor, options=OPTIONS) for key, entries in visits.items()}
    blocks = {
        key: layer
        for key, layer in request.blocks.items()
        if key in found and all(border_id(shape) in found for shape in shapes_of(layer))
    }
    if len(blocks) < MIN_ROWS:
        reason = next(iter(failed.values()), "the script has not got far enough; run it again, it goes on")
        raise FormatError(f"{path}: {len(blocks)} blocks were measured, and {MIN_ROWS} are needed: {reason}")
    rows = [_with_energy(_as_stated(row, tool), powers) for row in rows_from(blocks, found)]
    table = LatencyTable(
        device=_device(tool, manifest, system, name=name),
        kind=MEASURED,
        rows=fill_rows(list(request.blocks.values()), rows),
        rel_sigma=_UNCALIBRATED_REL_SIGMA,
        date=date,
        source=f"measured by {tool.name} through a pack of nas2edge",
        licence="Apache-2.0",
        protocol=_protocol(tool, manifest, system, files, measured=len(rows), failed=len(failed)),
    )
    return Ingested(table=calibrate(table, nets, found, cache_mb=None), failed=failed, system=system)


def _read(path: Path) -> dict[str, str]:
    """Returns the files of results by their names."""
    if path.is_dir():
        folder = path / "results" if (path / "results").is_dir() else path
        return {entry.name: _text(entry.read_bytes()) for entry in folder.iterdir() if entry.is_file()}
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = [
                member for member in archive.getmembers() if member.isfile() and "results" in member.name.split("/")
            ]
            opened = {Path(member.name).name: archive.extractfile(member) for member in members}
            return {name: _text(stream.read()) for name, stream in opened.items() if stream is not None}
    except (OSError, tarfile.TarError, EOFError) as err:
        raise FormatError(f"cannot read {path}: {err}; expected the results.tar.gz of a pack") from err


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _system(text: str) -> dict[str, str]:
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in pairs if colon and value.strip()}


def _check_precision(tool: Tool, precision: str, system: Mapping[str, str]) -> None:
    if tool.name != "benchncnn" or "features" not in system:
        return
    half = "asimdhp" in system["features"]
    if half != (precision == "fp16"):
        does = (
            "float16, since this CPU has half-precision arithmetic" if half else "float32, since this CPU has no other"
        )
        raise FormatError(f"benchncnn computed in {does}, but the pack says {precision}; write it with --precision "
                          f"{'fp16' if half else 'fp32'}")  # fmt: skip


def _visits(
    files: Mapping[str, str], ids: Mapping[str, str], tool: Tool, *, seconds: float
) -> tuple[dict[str, list[Visit]], dict[str, list[float]], dict[str, str]]:
    """Visits by item, power in milliwatts by item, and what failed."""
    read: list[tuple[str, ToolTimes, float | None]] = []
    failed: dict[str, str] = {}
    for name in sorted(files):
        match = re.fullmatch(r"\d{6}-s\d+-([a-z]+\d*)\.txt", name)
        if match is None or match[1] not in ids:
            continue
        head, _, output = files[name].partition("output:\n")
        try:
            read.append((match[1], tool.read(output), _power_mw(head, seconds) if tool.lasts else None))
        except FormatError as err:
            failed[ids[match[1]]] = str(err)
    references = [times.p50 if name == "reference" else math.nan for name, times, _ in read]
    before, after = _carried(references), _carried(references[::-1])[::-1]
    visits: dict[str, list[Visit]] = {}
    powers: dict[str, list[float]] = {}
    for i, (name, times, power) in enumerate(read):
        reference = np.nanmax([before[i], after[i]]) if not math.isnan(before[i]) or not math.isnan(after[i]) else 1.0
        visits.setdefault(ids[name], []).append(_visit(times, reference=float(reference)))
        if power is not None:
            powers.setdefault(ids[name], []).append(power)
    return visits, powers, {key: reason for key, reason in failed.items() if key not in visits}


def _carried(values: Sequence[float]) -> list[float]:
    """Each value, or the last one before it that is a number."""
    found: list[float] = []
    for value in values:
        found.append(found[-1] if math.isnan(value) and found else value)
    return found


def _visit(times: ToolTimes, *, reference: float) -> Visit:
    rounding = times.resolution * _ROUNDING
    p90 = times.p90 if times.p90 is not None else times.p50
    return Visit(
        n=times.n,
        min=min(times.min, times.p50),
        p10=min(times.min, times.p50),
        p50=times.p50,
        p90=max(p90, times.p50),
        std=times.std or 0.0,
        reference=reference,
        alone=True,
        rounding=rounding,
    )


def _floor(visits: Mapping[str, list[Visit]]) -> Floor:
    return Floor(float(np.percentile([visit.reference for entries in visits.values() for visit in entries], 5)))


def _power_mw(head: str, seconds: float) -> float | None:
    """Median power at the end of a call, when the model runs; None if a sensor said too little.

    What comes before (loading, and for TensorRT building the engine) takes another power.
    """
    line = next((line for line in head.splitlines() if line.startswith("power_mw: ")), "")
    samples = [float(word) for word in line.removeprefix("power_mw: ").split() if word.isdigit()]
    late = samples[-int(_RUNNING_SHARE * seconds / _SAMPLE_S) :]
    return float(np.median(late)) if len(late) >= _LEAST_POWER_SAMPLES and min(late) > 0 else None


def _as_stated(row: TableRow, tool: Tool) -> TableRow:
    """Leaves out what the tool does not tell."""
    return replace(
        row,
        min=row.min if "min" in tool.stated else None,
        p10=None,
        p90=row.p90 if "p90" in tool.stated else None,
        std=row.std if "std" in tool.stated else None,
    )


def _with_energy(row: TableRow, powers: Mapping[str, Sequence[float]]) -> TableRow:
    """Power while the block runs, times the time of a run; None where no sensor told it."""
    power = powers.get(row.layer.key)
    # mW times ms are microjoules.
    return row if not power else replace(row, energy_mj=float(np.mean(power)) * row.p50 / 1e3)


def _device(tool: Tool, manifest: Mapping[str, Any], system: Mapping[str, str], *, name: str) -> Device:
    memory = system.get("memory_kb", "").removesuffix("kB").strip()
    clocks = [f"{label} {system[key]}" for key, label in (("khz", "CPU kHz"), ("gpu_hz", "GPU Hz")) if key in system]
    return Device(
        name=name,
        board=system.get("board") or system.get("phone", ""),
        chip=system.get("chip") or system.get("board") or system.get("phone") or system.get("machine", "unknown"),
        runtime=tool.runtime,
        runtime_version="" if system.get("version", "unknown") == "unknown" else system["version"],
        precision=manifest["precision"],
        batch=manifest["batch"],
        threads=manifest["threads"],
        power_mode=system.get("power_mode") or system.get("governor", ""),
        clocks=", ".join(clocks) or "unknown: the system does not tell",
        memory=f"{int(memory) / 1e6:.3g} GB" if memory.isdigit() else "",
        os=", ".join(system[key] for key in ("os", "kernel", "jetpack") if key in system),
    )


def _protocol(
    tool: Tool,
    manifest: Mapping[str, Any],
    system: Mapping[str, str],
    files: Mapping[str, str],
    *,
    measured: int,
    failed: int,
) -> dict[str, Any]:
    end = _system(files.get("system-end.txt", ""))
    return {
        "tool": f"{tool.name} by a pack of nas2edge {manifest['nas2edge']}",
        "command": tool.options[manifest["precision"]],
        "figures": ", ".join(["median" if tool.median else "mean", *tool.stated]),
        "borders": "blocks between thin convolutions, whose own time is taken off",
        "sessions": 2,
        "seconds_per_session": manifest["seconds"],
        "seed": manifest["seed"],
        "measured_rows": measured,
        "failed_models": failed,
        "started": system.get("time", ""),
        "ended": end.get("time", ""),
        "temperatures_at_start": system.get("temperatures", ""),
        "temperatures_at_end": end.get("temperatures", ""),
        "clocks_at_end": ", ".join(end[key] for key in ("khz", "gpu_hz") if key in end),
    }

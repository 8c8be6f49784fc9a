"""Files of latency tables: format "nas2edge.latency_table", version 1; JSON with one row a line, made to be compared.

>>> table = read_table(Path("latency_tables/cpu.json"))  # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from nas2edge.costs import count_params, peak_activations
from nas2edge.device import Device
from nas2edge.errors import FormatError, TableError
from nas2edge.files import read_document, write_text
from nas2edge.latency.kernels import KernelLaw
from nas2edge.latency.table import Calibration, LatencyTable, TableRow, Validation
from nas2edge.plan import LayerSpec

FORMAT, VERSION = "nas2edge.latency_table", 1

_REQUIRED = ("device", "kind", "date", "source", "licence", "rel_sigma", "rows")
_OPTIONAL = ("format", "version", "calibration", "protocol", "validation", "law")
_OPS = ("first_conv", "mbconv", "mbpool")
_STATISTICS = ("n", "min", "p10", "p50", "p90", "std", "status", "rel_sigma", "energy_mj")
_MEMORY = ("act_kb", "weights_kb")
_MEMORY_TOLERANCE = 1e-4
_SHORTCUTS = ("none", "identity", "pool", "conv", "pool+conv")
_DIGITS = 6
_LATER = ("launch_ms", "warm_launches", "large")

T = TypeVar("T", Calibration, Validation)


def read_table(path: Path) -> LatencyTable:
    """Reads a latency table and checks every row.

    Raises:
        FormatError: The file cannot be read, does not parse, or is of another format or version.
        TableError: The header or a row is malformed; names the file, the row and the value.
    """
    raw = read_document(path, format=FORMAT, version=VERSION)
    try:
        return table_from_document(raw)
    except (TableError, FormatError) as err:
        raise TableError(f"{path}: {err}") from err


def write_table(path: Path, table: LatencyTable) -> None:
    """Writes a latency table in one step.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    write_text(path, table_to_text(table))


def table_to_text(table: LatencyTable) -> str:
    """Returns the text of the file."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kind": table.kind,
        "device": table.device.to_dict(),
        "date": table.date,
        "source": table.source,
        "licence": table.licence,
        "rel_sigma": _rounded(table.rel_sigma),
        "calibration": _calibration_dict(table.calibration),
        "validation": [{name: _rounded(value) for name, value in asdict(entry).items()} for entry in table.validation],
        "protocol": dict(table.protocol),
        "law": None if table.law is None else table.law.to_dict(),
    }
    rows = ",\n".join("    " + json.dumps(_row_to_dict(row) | _memory(row.layer, table.device)) for row in table.rows)
    text = json.dumps(header, indent=2).removesuffix("\n}")
    return f'{text},\n  "rows": [\n{rows}\n  ]\n}}\n'


def _row_to_dict(row: TableRow) -> dict[str, Any]:
    layer = row.layer
    size: dict[str, Any] = {"op": layer.op, "hw": layer.hw_in, "in": layer.in_chs}
    if layer.op != "first_conv":
        size["mid"] = layer.mid_chs
    size["out"] = layer.out_chs
    if layer.op != "mbpool":
        size |= {"k": layer.kernel_size, "s": layer.stride}
    if layer.op == "mbconv":
        size |= {"se": layer.se_chs, "skip": layer.shortcut}
    if layer.op == "mbpool":
        size["classes"] = layer.classes
    statistics = {name: _rounded(getattr(row, name)) for name in _STATISTICS}
    return {**size, "act": layer.act, **{name: value for name, value in statistics.items() if value is not None}}


def _memory(layer: LayerSpec, device: Device) -> dict[str, float]:
    """Returns what a block needs at its worst moment, by the plan: activations and weights in 1e3 bytes."""
    kb = device.value_bytes / 1e3
    return {
        "act_kb": _rounded(peak_activations(layer) * device.batch * kb),
        "weights_kb": _rounded(count_params(layer) * kb),
    }


def table_from_document(raw: Mapping[str, Any]) -> LatencyTable:
    """Reads the contents of a file and checks every row.

    Raises:
        FormatError: The law or the device is malformed.
        TableError: The header or a row is malformed; names the row and the value.
    """
    missing = [name for name in _REQUIRED if name not in raw]
    unknown = sorted(set(raw) - set(_REQUIRED) - set(_OPTIONAL))
    if missing or unknown:
        raise TableError(f"a latency table has the fields {', '.join(_REQUIRED)}; missing: {missing}, "
                         f"unknown: {unknown}")  # fmt: skip
    for name in ("kind", "date", "source", "licence"):
        if not isinstance(raw[name], str):
            raise TableError(f"{name} is {raw[name]!r}; expected a text")
    if not isinstance(raw["rows"], list):
        raise TableError(f"rows is {raw['rows']!r}; expected a list")
    protocol = raw.get("protocol") or {}
    if not isinstance(protocol, Mapping):
        raise TableError(f"protocol is {protocol!r}; expected an object")
    validation = raw.get("validation") or []
    if not isinstance(validation, list):
        raise TableError(f"validation is {validation!r}; expected a list")
    calibration = raw.get("calibration")
    device = Device.from_dict(raw["device"])
    return LatencyTable(
        device=device,
        kind=raw["kind"],
        rows=tuple(_row_from_dict(row, number, device) for number, row in enumerate(raw["rows"], start=1)),
        rel_sigma=_number(raw["rel_sigma"], where="rel_sigma"),
        date=raw["date"],
        source=raw["source"],
        licence=raw["licence"],
        calibration=Calibration() if calibration is None else _calibration(calibration, where="calibration"),
        protocol=dict(protocol),
        validation=tuple(_numbers(Validation, entry, where="validation") for entry in validation),
        law=None if raw.get("law") is None else KernelLaw.from_dict(raw["law"]),
    )


def _row_from_dict(raw: Any, number: int, device: Device) -> TableRow:
    where = f"row {number}"
    if not isinstance(raw, Mapping):
        raise TableError(f"{where} is {raw!r}; expected an object")
    try:
        layer = layer_from_dict(raw)
        where = f"row {number} ({layer.key})"
        for name in ("p50", "status", "rel_sigma"):
            if name not in raw:
                raise TableError(f"{name} is missing; every row has p50, status and rel_sigma")
        statistics = {name: raw[name] for name in _STATISTICS if name in raw and name != "status"}
        for name, value in statistics.items():
            _number(value, where=name)
        _check_memory(raw, layer, device)
        return TableRow(layer=layer, status=str(raw["status"]), **statistics)
    except TableError as err:
        raise TableError(f"{where}: {err}") from err


def _check_memory(raw: Mapping[str, Any], layer: LayerSpec, device: Device) -> None:
    """Memory follows from the block; a file that says otherwise is of another block or precision."""
    for name, expected in _memory(layer, device).items():
        stated = raw.get(name)
        if stated is not None and abs(_number(stated, where=name) - expected) > _MEMORY_TOLERANCE * expected:
            raise TableError(f"{name} is {stated}; the block needs {expected} in {device.precision} at batch "
                             f"{device.batch}")  # fmt: skip


def layer_from_dict(raw: Mapping[str, Any]) -> LayerSpec:
    """Reads the block of a row; its name stays empty.

    Raises:
        TableError: A field is missing, unknown or of the wrong type.
    """
    op = raw.get("op")
    if op not in _OPS:
        raise TableError(f"op is {op!r}; expected one of {', '.join(_OPS)}")
    if not isinstance(act := raw.get("act"), str):
        raise TableError(f"act is {act!r}; expected a text")
    names = {"first_conv": ("hw", "in", "out", "k", "s"), "mbconv": ("hw", "in", "mid", "out", "k", "s", "se"),
             "mbpool": ("hw", "in", "mid", "out", "classes")}[op]  # fmt: skip
    shortcut = raw.get("skip", "none")
    if shortcut not in _SHORTCUTS:
        raise TableError(f"skip is {shortcut!r}; expected one of {', '.join(_SHORTCUTS)}")
    expected = {*names, "op", "act", *_STATISTICS, *_MEMORY} | ({"skip"} if op == "mbconv" else set())
    if unknown := sorted(set(raw) - expected):
        raise TableError(f"unknown fields {', '.join(map(repr, unknown))}; expected {', '.join(sorted(expected))}")
    size = {name: _whole(raw.get(name), where=name, least=0 if name == "se" else 1) for name in names}
    stride = size.get("s", 1)
    return LayerSpec(
        name="",
        op=op,
        hw_in=size["hw"],
        hw_out=1 if op == "mbpool" else -(-size["hw"] // stride),
        in_chs=size["in"],
        mid_chs=size.get("mid", size["out"]),
        out_chs=size["out"],
        kernel_size=size.get("k", 1),
        stride=stride,
        se_chs=size.get("se", 0),
        act=act,
        shortcut=shortcut,
        classes=size.get("classes", 0),
    )


def _calibration_dict(calibration: Calibration) -> dict[str, Any]:
    large = {} if calibration.large is None else {"large": _calibration_dict(calibration.large)}
    return {name: _rounded(value) for name, value in asdict(calibration).items() if name != "large"} | large


def _calibration(raw: Any, *, where: str) -> Calibration:
    if not isinstance(raw, Mapping) or "large" not in raw:
        return _numbers(Calibration, raw, where=where)
    numbers = {name: value for name, value in raw.items() if name != "large"}
    large = _calibration(raw["large"], where=f"{where}.large")
    return replace(_numbers(Calibration, numbers, where=where), large=large)


def _numbers(cls: type[T], raw: Any, *, where: str) -> T:
    known = {entry.name: entry.type for entry in fields(cls)}
    # Older files lack what came later.
    required = {entry.name for entry in fields(cls) if entry.name not in _LATER}
    if not isinstance(raw, Mapping) or not required <= set(raw) <= set(known):
        raise TableError(f"{where} is {raw!r}; expected an object with {', '.join(known)}")
    for name, value in raw.items():
        if known[name] == "str":
            if not isinstance(value, str):
                raise TableError(f"{where}.{name} is {value!r}; expected a text")
        else:
            _number(value, where=f"{where}.{name}")
    return cls(**raw)


def _number(value: Any, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TableError(f"{where} is {value!r}; expected a finite number")
    return value


def _whole(value: Any, *, where: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TableError(f"{where} is {value!r}; expected a whole number, {least} or more")
    return value


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value

"""Lists with one line a block: CSV files, and what benchncnn prints. Lines of whole networks are named, never mapped.

A CSV file has the columns of a row of our tables (op, hw, in, mid, out, k, s, se, skip, act, classes, p50 and maybe n,
std, min), or one column `block` with a key such as "mbconv hw=12 in=16 mid=16 out=16 k=3 s=1 se=0 act=swish
skip=identity" instead of the sizes. benchncnn cannot print spaces in a name; there the key has commas.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from nas2edge.errors import FormatError, TableError
from nas2edge.latency.foreign import Foreign, measured_row, number, read_text
from nas2edge.latency.table import TableRow
from nas2edge.latency.table_file import layer_from_dict
from nas2edge.plan import LayerSpec

WHOLE_NETWORK = (
    "a whole network, which says nothing of single blocks; measure blocks, or transfer a neighbour's table with them"
)

_NCNN = re.compile(r"^\s*(\S+)\s+min\s*=\s*([\d.]+)\s+max\s*=\s*([\d.]+)\s+avg\s*=\s*([\d.]+)\s*$")
_SIZES = ("hw", "in", "mid", "out", "k", "s", "se", "classes")
_MS = ("p50", "median_ms", "latency_ms", "ms")


def layer_from_key(key: str) -> LayerSpec:
    """Returns the block of a key, with spaces or commas between its parts.

    Raises:
        TableError: It is no key of a block.
    """
    op, *parts = re.split(r"[ ,]+", key.strip())
    fields: dict[str, object] = {"op": op}
    for part in parts:
        name, _, value = part.partition("=")
        fields[name] = int(value) if value.isdigit() else value
    layer = layer_from_dict(fields)
    if layer.key != key.strip().replace(",", " "):
        raise TableError(f"{key!r} is no key of a block; expected such as {layer.key!r}")
    return layer


def read_ncnn(path: Path) -> Foreign:
    """Reads what benchncnn printed: min, max and avg in milliseconds.

    Raises:
        FormatError: The file cannot be read or has no such line.
    """
    rows: list[TableRow] = []
    not_mapped: dict[str, str] = {}
    matches = [match for line in read_text(path).splitlines() if (match := _NCNN.match(line))]
    if not matches:
        raise FormatError(f"{path} holds no line such as 'NAME  min = 1.0  max = 1.2  avg = 1.1' of benchncnn")
    for match in matches:
        name, least, _, mean = match.groups()
        try:
            layer = layer_from_key(name)
            rows.append(measured_row(layer, number(mean, where="avg"), least=number(least, where="min")))
        except TableError as err:
            not_mapped[name] = str(err) if "=" in name else WHOLE_NETWORK
    return Foreign(format="ncnn", rows=tuple(rows), not_mapped=not_mapped,
                   note="means of benchncnn, not medians; clocks are not stated")  # fmt: skip


def read_block_csv(path: Path) -> Foreign:
    """Reads a CSV file of blocks.

    Raises:
        FormatError: The file cannot be read or has no column of latencies.
    """
    lines = list(csv.DictReader(read_text(path).splitlines()))
    columns = set(lines[0]) if lines else set()
    ms_column = next((name for name in _MS if name in columns), None)
    if ms_column is None:
        raise FormatError(f"{path} has no column of latencies; expected one of {', '.join(_MS)}")
    rows: list[TableRow] = []
    not_mapped: dict[str, str] = {}
    for number_, line in enumerate(lines, start=2):
        try:
            if "block" not in columns and "op" not in columns:
                raise TableError(WHOLE_NETWORK)
            rows.append(_csv_row(line, ms_column))
        except (TableError, ValueError) as err:
            not_mapped[f"line {number_} ({_name(line)})"] = str(err)
    return Foreign(format="csv", rows=tuple(rows), not_mapped=not_mapped, note="as stated in the file")


def _name(line: Mapping[str, str]) -> str:
    return line.get("block") or line.get("model") or line.get("op") or next(iter(line.values()))


def _csv_row(line: Mapping[str, str], ms_column: str) -> TableRow:
    if line.get("block"):
        layer = layer_from_key(line["block"])
    else:
        sizes: dict[str, object] = {name: int(line[name]) for name in _SIZES if line.get(name)}
        texts = {name: line[name] for name in ("op", "act", "skip") if line.get(name)}
        layer = layer_from_dict(sizes | texts)
    std, least, n = line.get("std"), line.get("min"), line.get("n")
    return measured_row(
        layer,
        number(line[ms_column], where=ms_column),
        n=int(n) if n else 1,
        std=float(std) if std else None,
        least=number(least, where="min") if least else None,
    )

"""Importing latencies that others measured: files of other tools become *derived* tables, rows marked measured.

>>> read = read_foreign([Path("224_lookup_table.yaml")], format="ofa-yaml")  # doctest: +SKIP
>>> len(read.rows), list(read.not_mapped)  # doctest: +SKIP
(96, [])

What a file holds either maps to a block with every detail (shortcut, activation, squeeze) or is listed in `not_mapped`
with the reason; nothing is dropped. Whole networks never become rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from nas2edge.device import Device
from nas2edge.errors import FormatError, UnknownNameError
from nas2edge.latency.foreign import Foreign, merge
from nas2edge.latency.foreign_blocks import read_nn_meter, read_ofa_yaml, read_proxyless_yaml
from nas2edge.latency.foreign_lists import read_block_csv, read_ncnn
from nas2edge.latency.foreign_profiles import read_tflite_csv, read_trtexec
from nas2edge.latency.table import DERIVED, Calibration, LatencyTable
from nas2edge.plan import LayerSpec

BLOCK_FORMATS: Mapping[str, Callable[[Path], Foreign]] = MappingProxyType(
    {
        "ofa-yaml": read_ofa_yaml,
        "proxyless-yaml": read_proxyless_yaml,
        "nn-meter": read_nn_meter,
        "ncnn": read_ncnn,
        "csv": read_block_csv,
    }
)
"""Readers of files in which each entry names its block."""

PROFILE_FORMATS: Mapping[str, Callable[[Path, Sequence[LayerSpec]], Foreign]] = MappingProxyType(
    {"trtexec-profile": read_trtexec, "tflite-csv": read_tflite_csv}
)
"""Readers of profiles of one network, whose layers are told apart by the names that they were exported with."""

FORMATS = (*BLOCK_FORMATS, *PROFILE_FORMATS)


def read_foreign(paths: Sequence[Path], *, format: str, layers: Sequence[LayerSpec] = ()) -> Foreign:
    """Reads files of another tool.

    Args:
        paths: The files, all of one format.
        format: One of `FORMATS`.
        layers: For profiles: the plan of the network that was profiled.

    Raises:
        FormatError: A file cannot be read or is not of that format, or nothing in it is a block.
        MissingDependencyError: The format needs a package that is not installed.
        UnknownNameError: There is no such format.
    """
    if format in BLOCK_FORMATS:
        read = merge([BLOCK_FORMATS[format](path) for path in paths])
    elif format in PROFILE_FORMATS:
        if not layers:
            raise FormatError(f"a {format} file does not say which network it is of; give that with --subnet")
        read = merge([PROFILE_FORMATS[format](path, layers) for path in paths])
    else:
        raise UnknownNameError("format", format, FORMATS)
    if not read.rows:
        reasons = "; ".join(sorted(set(read.not_mapped.values()))) or "the files are empty"
        raise FormatError(f"nothing in {', '.join(map(str, paths))} is the latency of a block: {reasons}")
    return read


def imported_table(
    read: Foreign,
    device: Device,
    *,
    source: str,
    licence: str,
    date: str,
    rel_sigma: float,
    network_ms: float | None = None,
    layers: Sequence[LayerSpec] = (),
) -> LatencyTable:
    """Returns a derived table of what was read.

    Args:
        read: The rows.
        device: What they were measured on, as far as the source says.
        source: Where they come from, for a reader to check.
        licence: SPDX identifier of the figures' licence.
        date: ISO date of the import.
        rel_sigma: Expected relative error of a network beyond that of its rows; nothing in the files tells it.
        network_ms: For profiles: the network's latency without the profiler, which taxes every layer.
        layers: For profiles: the plan of that network.

    Raises:
        TableError: A row is malformed, or `network_ms` is not positive.
    """
    calibration = Calibration()
    if network_ms is not None:
        summed = {row.layer.key: row.p50 for row in read.rows}
        calibration = Calibration(slope=network_ms / sum(summed[layer.key] for layer in layers), nets=1)
    protocol = {"tool": f"nas2edge tables import ({read.format})", "note": read.note,
                "not_mapped": len(read.not_mapped)}  # fmt: skip
    return LatencyTable(device=device, kind=DERIVED, rows=read.rows, rel_sigma=rel_sigma, date=date, source=source,
                        licence=licence, calibration=calibration, protocol=protocol)  # fmt: skip

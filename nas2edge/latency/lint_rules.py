"""The lint rules of latency tables. Each would have caught a table that somebody published; docs/latency.md says which.

A rule reads the raw document, since a table with negative entries does not even load. It yields findings
(row key or "", message, severity or "" for the rule's own), or returns the reason why it cannot check.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from nas2edge.costs import count_macs
from nas2edge.device import Device
from nas2edge.errors import FormatError, TableError
from nas2edge.latency.law import MAX_SHARE_OF_PEAK
from nas2edge.latency.registry import find_law
from nas2edge.latency.roofline import robust_fit_ms
from nas2edge.latency.table import MEASURED, LatencyTable
from nas2edge.latency.table_file import layer_from_dict, table_from_document
from nas2edge.plan import LayerSpec
from nas2edge.stats import kendall_tau

ERROR, WARNING = "error", "warning"

Check = Callable[["Document"], "list[tuple[str, str, str]] | str"]

CPU_PEAK_GMAC_S = 160.0
"""No core of any CPU computes more in FP32: two 512-bit units at 5 GHz."""

MIN_RUNS = 20
MAX_SPREAD = 0.10
OUTLIER = 10.0
_TIMES = ("min", "p10", "p50", "p90", "std")
_FALL, _FALLING_SHARE = 0.10, 0.10
_MIN_ROWS = 12
_RANKED = 400
_MIN_EQUAL = 3
_SAME_RATIO = 0.002
_SLOWEST_GMAC_S = 0.01
_SIZES = ("kernel_size", "mid_chs", "out_chs", "hw_in")
_WORDS = {"kernel_size": "kernel size", "mid_chs": "expansion", "out_chs": "width", "hw_in": "map side"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or doubtful in a table.

    Args:
        rule: Stable id, such as "N2E-L001".
        severity: "error" or "warning".
        row: Key of the row, or its number where it has none; "" if it is about the whole table.
        message: What is wrong, with the values.
        advice: What to do.
    """

    rule: str
    severity: str
    row: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A check with its stable id.

    Args:
        id: Never used for another rule, even after this one is gone.
        title: What it finds, in a few words.
        severity: "error" or "warning"; a check may raise or lower it.
        advice: What to do about a finding.
        check: Returns what it finds, or why it cannot.
    """

    id: str
    title: str
    severity: str
    advice: str
    check: Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row whose block reads and whose p50 is a positive number."""

    layer: LayerSpec
    p50: float
    macs: int
    raw: Mapping[str, Any]

    @property
    def measured(self) -> bool:
        return bool(self.raw.get("status") == MEASURED)


class Document:
    """A table file as rules see it: the raw text, the rows that make sense, and the table if it loads.

    Args:
        raw: The parsed file.
        others: Tables of other devices.
    """

    def __init__(self, raw: Mapping[str, Any], *, others: tuple[LatencyTable, ...]) -> None:
        self.raw = raw
        self.others = others
        device = raw.get("device")
        self.device: Mapping[str, Any] = device if isinstance(device, Mapping) else {}
        self.device_name = str(self.device.get("name", ""))
        rows = raw.get("rows")
        self.raw_rows: list[Any] = rows if isinstance(rows, list) else []

    @cached_property
    def table(self) -> LatencyTable | str:
        """The table, or why it does not load."""
        try:
            return table_from_document(self.raw)
        except (FormatError, TableError) as err:
            return str(err)

    @cached_property
    def rows(self) -> list[Row]:
        """The rows that can be compared with others."""
        return [row for raw in self.raw_rows if (row := _row(raw)) is not None]

    @cached_property
    def peak(self) -> float | None:
        """Arithmetic peak of the device in GMAC/s, None if it is not known."""
        law = self.raw.get("law")
        if isinstance(law, Mapping) and _is_number(law.get("peak_gmac_s")):
            return float(law["peak_gmac_s"])
        if (known := find_law(self.device_name)) is not None:
            return known.peak_gmac_s
        try:
            device = Device.from_dict(self.device)
        except FormatError:
            return None
        return None if device.threads is None else device.threads * CPU_PEAK_GMAC_S * 4 / device.value_bytes

    @cached_property
    def fitted_ms(self) -> npt.NDArray[np.float64] | None:
        """What a roofline through most rows says of each row; None if the rows are too few."""
        if len(self.rows) < _MIN_ROWS:
            return None
        return robust_fit_ms([row.layer for row in self.rows], [row.p50 for row in self.rows])


def key_of(raw: Any, number: int) -> str:
    """Returns the key of a raw row, or its number if its block does not read."""
    try:
        return layer_from_dict(raw).key
    except (TableError, AttributeError):
        return f"row {number}"


def _row(raw: Any) -> Row | None:
    if not isinstance(raw, Mapping):
        return None
    try:
        layer = layer_from_dict(raw)
    except TableError:
        return None
    p50 = raw.get("p50")
    if not _is_number(p50) or not 0 < p50 < math.inf:
        return None
    return Row(layer=layer, p50=float(p50), macs=count_macs(layer), raw=raw)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _not_positive(document: Document) -> list[tuple[str, str, str]] | str:
    found = []
    for number, raw in enumerate(document.raw_rows, start=1):
        values = {name: raw.get(name) for name in _TIMES} if isinstance(raw, Mapping) else {}
        for name, value in values.items():
            if _is_number(value) and not (0 < value < math.inf or (name == "std" and value == 0)):
                found.append((key_of(raw, number), f"{name} is {value} ms; a latency is a positive number", ""))
    return found


def _does_not_load(document: Document) -> list[tuple[str, str, str]] | str:
    return [("", document.table, "")] if isinstance(document.table, str) else []


def _above_peak(document: Document) -> list[tuple[str, str, str]] | str:
    if document.peak is None:
        return "the device's arithmetic peak is not known"
    found = []
    for row in document.rows:
        rate = row.macs / (row.p50 * 1e6)
        if rate > MAX_SHARE_OF_PEAK * document.peak:
            message = (f"{row.p50} ms mean {rate:.3g} GMAC/s, {rate / document.peak:.0%} of the device's peak of "
                       f"{document.peak:.4g} GMAC/s; no real block reaches {MAX_SHARE_OF_PEAK:.0%}")  # fmt: skip
            # Peaks of devices outside our list are bounds from the number of threads, and clocks can be raised.
            found.append((row.layer.key, message, ERROR if rate > document.peak else WARNING))
    return found


def _falls_with_size(document: Document) -> list[tuple[str, str, str]] | str:
    found: list[tuple[str, str, str]] = []
    compared = False
    for size in _SIZES:
        pairs = list(_neighbours(document.rows, size))
        falls = [(big.p50 / small.p50 - 1.0, small, big) for small, big in pairs if _falls(small, big)]
        compared |= bool(pairs)
        if falls:
            change, small, big = min(falls, key=lambda fall: fall[0])
            share = len(falls) / len(pairs)
            message = (f"latency falls as the {_WORDS[size]} grows in {len(falls)} of {len(pairs)} pairs of rows; most "
                       f"({change:+.0%}) from {small.p50} ms at {getattr(small.layer, size)} to {big.p50} ms at "
                       f"{getattr(big.layer, size)}")  # fmt: skip
            found.append((big.layer.key, message, ERROR if share >= _FALLING_SHARE and len(falls) > 2 else WARNING))
    return found if compared else "no two rows differ in one size only"


def _neighbours(rows: Sequence[Row], size: str) -> Iterator[tuple[Row, Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        layer = row.layer
        sizes = [getattr(layer, name) for name in _SIZES if name != size]
        # The squeeze follows the expansion; whether there is one must agree, not how wide it is.
        groups[(layer.op, layer.in_chs, layer.stride, layer.se_chs > 0, layer.act, layer.shortcut, layer.classes,
                layer.expands, *sizes)].append(row)  # fmt: skip
    for group in groups.values():
        group.sort(key=lambda row: float(getattr(row.layer, size)))
        yield from ((a, b) for a, b in pairwise(group) if getattr(a.layer, size) != getattr(b.layer, size))


def _falls(small: Row, big: Row) -> bool:
    sigma = 0.0
    if small.measured and big.measured:  # the errors of estimates are common to both
        sigmas = [row.raw.get("rel_sigma") for row in (small, big)]
        sigma = math.hypot(*(float(value) for value in sigmas if _is_number(value)))
    return big.p50 < small.p50 * (1.0 - max(_FALL, 2.0 * sigma))


def _not_ranked_by_macs(document: Document) -> list[tuple[str, str, str]] | str:
    if len(document.rows) < _MIN_ROWS:
        return f"fewer than {_MIN_ROWS} rows"
    rows = document.rows[:: -(-len(document.rows) // _RANKED)]  # the time grows with the square
    tau = kendall_tau([row.macs for row in rows], [row.p50 for row in rows])
    message = f"the rank correlation of latency with MACs is {tau:.2f} over {len(rows)} rows"
    return [("", message, "")] if tau <= 0 else []


def _equal_to_another_device(document: Document) -> list[tuple[str, str, str]] | str:
    if not document.others:
        return "no other tables to compare with"
    found = []
    for other in document.others:
        if other.device.name == document.device_name or not other.rows:
            continue
        theirs = {row.layer.key: row.p50 for row in other.rows}
        shared = [row for row in document.rows if row.layer.key in theirs]
        equal = [row for row in shared if _digits(row.p50) >= 4 and _same(row.p50, theirs[row.layer.key])]
        if len(equal) >= _MIN_EQUAL:
            message = (
                f"{len(equal)} of {len(shared)} shared rows equal those of {other.device.name!r} to the last digit"
            )
            found.append((equal[0].layer.key, message, ""))
    return found


def _same(a: float, b: float) -> bool:
    return f"{a:.6g}" == f"{b:.6g}"


def _digits(value: float) -> int:
    return len(f"{value:.6g}".replace(".", "").split("e")[0].strip("0"))


def _other_version(document: Document) -> list[tuple[str, str, str]] | str:
    if not document.others:
        return "no other tables to compare with"
    found = []
    ours = [row for row in document.rows if row.measured]
    for other in document.others:
        theirs = {row.layer.key: row.p50 for row in other.rows if row.status == MEASURED}
        ratios = np.array([row.p50 / theirs[row.layer.key] for row in ours if row.layer.key in theirs])
        if len(ratios) < _MIN_ROWS:
            continue
        low, middle, high = np.percentile(ratios, [5, 50, 95])
        if high / low - 1.0 < 2 * _SAME_RATIO and abs(middle - 1.0) > 2 * _SAME_RATIO:
            message = f"{len(ratios)} measured rows are {middle:.4g} times those of {other.device.name!r}, all of them"
            found.append(("", message, ""))
    return found


def _unit_mixed_up(document: Document) -> list[tuple[str, str, str]] | str:
    rates = [row.macs / (row.p50 * 1e6) for row in document.rows if row.macs]
    if not rates:
        return "no rows"
    rate = float(np.median(rates))
    if document.peak is not None and rate > document.peak:
        message = f"half of the rows are faster than {rate:.3g} GMAC/s, above the device's peak: these may be seconds"
        return [("", message, "")]
    if rate < _SLOWEST_GMAC_S:
        return [("", f"half of the rows are slower than {rate:.3g} GMAC/s: these may be microseconds", "")]
    if (fitted := document.fitted_ms) is not None:
        off = np.abs(np.log10(np.array([row.p50 for row in document.rows]) / fitted))
        mixed = np.abs(off - 3.0) < 1.0  # a hundred to ten thousand times
        if mixed.any():
            row = document.rows[int(np.argmax(mixed))]
            message = f"{row.p50} ms is about 1000 times off what the other rows say, as are {int(mixed.sum())} rows"
            return [(row.layer.key, message, "")]
    return []


def _spread_too_wide(document: Document) -> list[tuple[str, str, str]] | str:
    measured = [row for row in document.rows if row.measured and _is_number(row.raw.get("std"))]
    if not measured:
        return "no measured row states a standard deviation"
    return [
        (row.layer.key, f"std / p50 is {row.raw['std'] / row.p50:.0%}; a quiet device stays below {MAX_SPREAD:.0%}", "")
        for row in measured
        if row.raw["std"] > MAX_SPREAD * row.p50
    ]


def _too_few_runs(document: Document) -> list[tuple[str, str, str]] | str:
    measured = [row for row in document.rows if row.measured]
    if not measured:
        return "no measured rows"
    few = [row for row in measured if not _is_number(row.raw.get("n")) or row.raw["n"] < MIN_RUNS]
    if not few:
        return []
    least = few[0].raw.get("n")
    return [(few[0].layer.key, f"{len(few)} of {len(measured)} rows state fewer than {MIN_RUNS} runs, such as {least}",
             "")]  # fmt: skip


def _outliers(document: Document) -> list[tuple[str, str, str]] | str:
    if document.fitted_ms is None:
        return f"fewer than {_MIN_ROWS} rows"
    found = []
    for row, fitted in zip(document.rows, document.fitted_ms.tolist(), strict=True):
        if not 1 / OUTLIER < row.p50 / fitted < OUTLIER:
            found.append((row.layer.key, f"{row.p50:.4g} ms where rows like it mean about {fitted:.4g} ms", ""))
    return found


def _whole_milliseconds(document: Document) -> list[tuple[str, str, str]] | str:
    if len(document.rows) < _MIN_ROWS:
        return f"fewer than {_MIN_ROWS} rows"
    whole = sum(row.p50 == round(row.p50) for row in document.rows)
    message = f"{whole} of {len(document.rows)} latencies are whole milliseconds"
    return [("", message, "")] if whole >= 0.9 * len(document.rows) else []


def _no_provenance(document: Document) -> list[tuple[str, str, str]] | str:
    stated = {
        "source": document.raw.get("source"),
        "licence": document.raw.get("licence"),
        "device.clocks": document.device.get("clocks"),
        "device.runtime_version": document.device.get("runtime_version"),
    }
    unknown = [name for name, value in stated.items() if not value or str(value).lower().startswith("unknown")]
    return [("", f"not stated: {', '.join(unknown)}", "")] if unknown else []


_AGAIN = "measure these rows again, or drop them so that they are interpolated"
RULES = (
    Rule(id="N2E-L001", title="negative or zero latency", severity=ERROR, check=_not_positive, advice=_AGAIN),
    Rule(id="N2E-L002", title="not a table that loads", severity=ERROR, check=_does_not_load,
         advice="correct the named field; docs/latency.md describes the file"),
    Rule(id="N2E-L003", title="faster than the device can compute", severity=ERROR, check=_above_peak,
         advice="check the unit, the device's name and whether the timer waited for the device to finish"),
    Rule(id="N2E-L004", title="latency falls with size", severity=WARNING, check=_falls_with_size,
         advice="measure these rows again with pinned clocks; on a GPU a few such pairs are real"),
    Rule(id="N2E-L005", title="latency does not rank with MACs", severity=ERROR, check=_not_ranked_by_macs,
         advice="rows and latencies are probably mismatched, or all time is overhead; measure again"),
    Rule(id="N2E-L006", title="values of another device", severity=ERROR, check=_equal_to_another_device,
         advice="these rows were copied, not measured; measure them on this device"),
    Rule(id="N2E-L007", title="constant ratio to another table", severity=WARNING, check=_other_version,
         advice="it is another version or a scaled copy; find out which is right and never mix them"),
    Rule(id="N2E-L008", title="wrong unit", severity=ERROR, check=_unit_mixed_up,
         advice="a table holds milliseconds; convert it"),
    Rule(id="N2E-L009", title="wide spread", severity=WARNING, check=_spread_too_wide,
         advice="pin clocks and governor, close other programs, and measure these rows again"),
    Rule(id="N2E-L010", title="too few runs", severity=WARNING, check=_too_few_runs,
         advice=f"time each row at least {MIN_RUNS} times, better 50"),
    Rule(id="N2E-L011", title="outlier", severity=ERROR, check=_outliers, advice=_AGAIN),
    Rule(id="N2E-L012", title="whole milliseconds", severity=WARNING, check=_whole_milliseconds,
         advice="use a finer clock, or time many runs together"),
    Rule(id="N2E-L013", title="missing provenance", severity=WARNING, check=_no_provenance,
         advice="state it in the file; without runtime version and clocks a latency is good to 20 to 60 %"),
)  # fmt: skip
"""All rules, by id."""

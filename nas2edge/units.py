"""Quantities as people write them, and as numbers: "20ms", "1.5s", "300M", "20min".

>>> parse_latency_ms("1.5s")
1500.0
>>> parse_count("300M")
300000000
>>> format_count(203_389_568)
'203.4M'
"""

from __future__ import annotations

import math
import re

from nas2edge.errors import UnitError

_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµμ]*)\s*")
_MS_PER_UNIT = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
_MJ_PER_UNIT = {"uJ": 1e-3, "µJ": 1e-3, "μJ": 1e-3, "mJ": 1.0, "J": 1e3}
_SECONDS_PER_UNIT = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES_PER_UNIT = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_COUNT_PER_UNIT = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def parse_latency_ms(text: str) -> float:
    """Reads a latency with its unit (ns, us, ms or s) and returns milliseconds.

    Raises:
        UnitError: The text is no positive number followed by one of these units.
    """
    return _parse(text, _MS_PER_UNIT, what="latency", example="20ms")


def parse_energy_mj(text: str) -> float:
    """Reads an energy with its unit (uJ, mJ or J) and returns millijoules.

    Raises:
        UnitError: The text is no positive number followed by one of these units.
    """
    return _parse(text, _MJ_PER_UNIT, what="energy", example="5mJ")


def parse_duration_s(text: str) -> float:
    """Reads a duration with its unit (ms, s, min or h) and returns seconds.

    Raises:
        UnitError: The text is no positive number followed by one of these units.
    """
    return _parse(text, _SECONDS_PER_UNIT, what="duration", example="20min")


def parse_count(text: str) -> int:
    """Reads a count with an optional k, M or G (powers of 1000) and returns a whole number.

    Raises:
        UnitError: The text is no positive number followed by nothing or one of these letters.
    """
    count = round(_parse(text, _COUNT_PER_UNIT, what="count", example="300M"))
    if count < 1:
        raise UnitError(f"the count {text!r} is less than 1; expected a positive number, for example '300M'")
    return count


def parse_bytes(text: str) -> int:
    """Reads a size in bytes with its unit (B, kB, MB, GB: powers of 1000; KiB, MiB, GiB: powers of 1024).

    Raises:
        UnitError: The text is no positive number followed by one of these units.
    """
    size = round(_parse(text, _BYTES_PER_UNIT, what="size", example="2MB"))
    if size < 1:
        raise UnitError(f"the size {text!r} is less than 1 byte; expected a positive number, for example '2MB'")
    return size


def format_bytes(size: float) -> str:
    """Writes a number of bytes with four significant digits and B, kB, MB or GB: 2097152 becomes "2.097 MB"."""
    text = format_count(size)
    number, unit = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "")
    return f"{number} {unit}B"


def format_count(count: float) -> str:
    """Writes a count with four significant digits and k, M or G: 203389568 becomes "203.4M"."""
    rounded = float(f"{count:.4g}")  # first, so that 999,960 is 1M, not 1000k
    for unit in ("G", "M", "k"):
        scale = _COUNT_PER_UNIT[unit]
        if abs(rounded) >= scale:
            return f"{rounded / scale:g}{unit}"
    return f"{rounded:g}"


def format_latency(latency_ms: float) -> str:
    """Writes a latency with three significant digits in the unit that fits: 0.0421 becomes "42.1 us"."""
    rounded = float(f"{latency_ms:.3g}")  # first, so that 999.6 ms is 1 s
    if abs(rounded) >= 1000.0:
        return f"{rounded / 1000.0:g} s"
    if abs(rounded) >= 1.0 or rounded == 0.0:
        return f"{rounded:g} ms"
    return f"{rounded * 1000.0:g} us"


def format_energy(energy_mj: float) -> str:
    """Writes an energy with three significant digits in the unit that fits: 1234.5 becomes "1.23 J"."""
    rounded = float(f"{energy_mj:.3g}")
    if abs(rounded) >= 1000.0:
        return f"{rounded / 1000.0:g} J"
    return f"{rounded:g} mJ" if abs(rounded) >= 1.0 or rounded == 0.0 else f"{rounded * 1000.0:g} uJ"


def _parse(text: str, scale_of: dict[str, float] | dict[str, int], *, what: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    units = ", ".join(unit or "no unit" for unit in scale_of)
    if match is None:
        raise UnitError(
            f"{text!r} is not a {what}; expected a positive number and a unit ({units}), for example {example!r}"
        )
    number, unit = float(match.group(1)), match.group(2)
    if unit not in scale_of:
        said = f"has the unit {unit!r}" if unit else "has no unit"
        raise UnitError(f"the {what} {text!r} {said}; expected one of: {units}, for example {example!r}")
    value = number * scale_of[unit]
    if not math.isfinite(value) or value <= 0:
        raise UnitError(f"the {what} {text!r} is {value}; expected a positive number, for example {example!r}")
    return value

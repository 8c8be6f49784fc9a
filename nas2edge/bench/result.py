"""Results of measuring artefacts: their figures, and the samples that a later check compares with.

The file is JSON, format "nas2edge.bench", version 1; `nas2edge bench --json` prints it and `nas2edge check --save` and
`--baseline` write and read it. Beside every artefact runs the *anchor*, a small fixed network: a later measurement on
the same machine compares how many times the anchor each took, so that a change of clock or load meanwhile cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas2edge._version import __version__
from nas2edge.bench.artefact import Artefact
from nas2edge.bench.fingerprint import Fingerprint
from nas2edge.bench.footprint import Footprint, read_footprint, read_input
from nas2edge.bench.measure import Array, Round, stack_logs
from nas2edge.bench.predicted import subnet_of
from nas2edge.bench.stats import Interval, median_interval
from nas2edge.errors import FormatError
from nas2edge.files import read_document

FORMAT, VERSION = "nas2edge.bench", 1
_DIGITS = 6
_HISTOGRAM = 400  # run times of an artefact that are kept for pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds of one artefact.

    Args:
        runs: Timed runs.
        min: Fastest run; p50, p90, p99 are quantiles of the runs, max the slowest.
        p50_interval: Of the median of slices.
        load_ms: Median over processes of loading it.
        first_ms: Median over processes of the first run.
        warm: Whether the times were stable when timing began, in every process.
        peak_bytes: Greatest memory of a process; None where the system does not tell.
        added_bytes: What loading and running it added to the process's memory.
    """

    runs: int
    min: float
    p50: float
    p90: float
    p99: float
    max: float
    p50_interval: Interval
    load_ms: float
    first_ms: float
    warm: bool
    peak_bytes: int | None
    added_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One artefact's figures and samples.

    Args:
        artefact: What was run; of a stored result, where it then lay.
        sha256: Of the file.
        runtime: Name and version.
        shape: Of the input.
        dtype: Of the input.
        footprint: Costs that need no clock.
        timing: None if nothing was timed.
        logs: Log seconds a run, shape (rounds, cycles).
        anchor_logs: Of the anchor, in the same cycles.
        sample: Some of the run times, in milliseconds, evenly from fastest to slowest.
    """

    artefact: Artefact
    sha256: str
    runtime: str
    shape: tuple[int, ...]
    dtype: str
    footprint: Footprint
    timing: Timing | None = None
    logs: Array | None = None
    anchor_logs: Array | None = None
    sample: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "artefact": self.artefact.name,
            "file": self.artefact.path.name,
            "sha256": self.sha256,
            "runtime": self.artefact.runtime,
            "runtime_version": self.runtime,
            "input": {"shape": list(self.shape), "dtype": self.dtype},
            "footprint": self.footprint.to_dict(),
            "subnet": subnet_of(self.artefact),
            "latency_ms": None if self.timing is None else _timing_dict(self.timing),
            "log_seconds": _rounded(self.logs),
            "anchor_log_seconds": _rounded(self.anchor_logs),
            "sample_ms": [round(ms, _DIGITS) for ms in self.sample],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A result that was read from a file.

    Args:
        path: The file.
        fingerprint: Of the machine; None if nothing was timed.
        name: The artefact's name when it was measured.
        sha256: Of its file then.
        runtime: One of `nas2edge.runtimes.RUNTIMES`.
        shape: Of the input.
        dtype: Of the input.
        footprint: Costs that need no clock.
        subnet: Which sub-network it is, see `nas2edge.bench.predicted.subnet_of`; None if it did not say.
        p50_ms: Median; None if nothing was timed.
        logs: Log seconds a run, shape (rounds, cycles); None if nothing was timed.
        anchor_logs: Of the anchor.
    """

    path: Path
    fingerprint: Fingerprint | None
    name: str
    sha256: str
    runtime: str
    shape: tuple[int, ...]
    dtype: str
    footprint: Footprint
    subnet: Mapping[str, Any] | None
    p50_ms: float | None
    logs: Array | None
    anchor_logs: Array | None


def timing(rounds: Sequence[Round], index: int) -> Timing:
    """Sums up one artefact's row of rounds."""
    runs = np.concatenate([found.runs[index] for found in rounds]) * 1e3
    starts = [found.starts[index] for found in rounds]
    p50, p90, p99 = np.percentile(runs, [50, 90, 99]).tolist()
    peaks = [start.peak_bytes for start in starts if start.peak_bytes is not None]
    added = [start.peak_bytes - start.before_bytes for start in starts if start.peak_bytes and start.before_bytes]
    logs = stack_logs(rounds)[index]
    return Timing(
        runs=len(runs),
        min=float(runs.min()),
        p50=p50,
        p90=p90,
        p99=p99,
        max=float(runs.max()),
        p50_interval=median_interval(logs).map(lambda log: float(np.exp(log)) * 1e3),
        load_ms=float(np.median([start.load_s for start in starts])) * 1e3,
        first_ms=float(np.median([start.first_s for start in starts])) * 1e3,
        warm=all(start.warm_up["stable"] for start in starts),
        peak_bytes=max(peaks, default=None),
        added_bytes=max(added, default=None),
    )


def make_result(
    artefact: Artefact, footprint: Footprint, rounds: Sequence[Round], *, index: int, anchor: int | None
) -> Result:
    """Makes an artefact's result of its row in rounds, and the anchor's row if it was timed too."""
    start = rounds[0].starts[index]
    runs = np.sort(np.concatenate([found.runs[index] for found in rounds])) * 1e3
    kept = runs[np.linspace(0, len(runs) - 1, min(len(runs), _HISTOGRAM)).astype(int)]
    return Result(
        artefact=artefact,
        sha256=artefact.sha256,
        runtime=start.runtime,
        shape=start.shape,
        dtype=start.dtype,
        footprint=footprint,
        timing=timing(rounds, index),
        logs=stack_logs(rounds)[index],
        anchor_logs=None if anchor is None else stack_logs(rounds)[anchor],
        sample=tuple(kept.tolist()),
    )


def untimed_result(artefact: Artefact) -> Result:
    """Returns an artefact's costs that need no clock, and no times.

    Raises:
        FormatError: The file is damaged.
    """
    shape, dtype = read_input(artefact) or (artefact.shape or (), "")
    return Result(
        artefact=artefact,
        sha256=artefact.sha256,
        runtime="",
        shape=shape,
        dtype=dtype,
        footprint=read_footprint(artefact),
    )


def results_dict(
    results: Sequence[Result],
    *,
    fingerprint: Fingerprint | None,
    conditions: Mapping[str, Any],
    comparisons: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """Returns the JSON form of results that were taken together."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "tool": {"nas2edge": __version__},
        "fingerprint": None if fingerprint is None else fingerprint.to_dict(),
        "conditions": dict(conditions),
        "results": [result.to_dict() for result in results],
        "comparisons": [dict(entry) for entry in comparisons],
        **more,
    }


def read_stored(path: Path) -> Stored:
    """Reads a stored result; of several artefacts the first.

    Raises:
        FormatError: The file cannot be read, or is damaged.
    """
    raw = read_document(path, format=FORMAT, version=VERSION)
    try:
        entry = raw["results"][0]
        fingerprint = None if raw["fingerprint"] is None else Fingerprint.from_dict(raw["fingerprint"])
        return Stored(
            path=path,
            fingerprint=fingerprint,
            name=str(entry["artefact"]),
            sha256=str(entry["sha256"]),
            runtime=str(entry["runtime"]),
            shape=tuple(map(int, entry["input"]["shape"])),
            dtype=str(entry["input"]["dtype"]),
            footprint=Footprint.from_dict(entry["footprint"]),
            subnet=entry["subnet"],
            p50_ms=None if entry["latency_ms"] is None else float(entry["latency_ms"]["p50"]),
            logs=_array(entry["log_seconds"]),
            anchor_logs=_array(entry["anchor_log_seconds"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, FormatError) as err:
        raise FormatError(f"{path} is damaged ({err!r}); store it again: nas2edge check NEW --save {path}") from err


def _timing_dict(timing: Timing) -> dict[str, Any]:
    interval = timing.p50_interval
    return {
        "runs": timing.runs,
        **{name: round(getattr(timing, name), _DIGITS) for name in ("min", "p50", "p90", "p99", "max")},
        "p50_interval": None if interval.low == 0.0 else [round(interval.low, _DIGITS), round(interval.high, _DIGITS)],
        "load": round(timing.load_ms, 3),
        "first": round(timing.first_ms, 3),
        "warm": timing.warm,
        "peak_bytes": timing.peak_bytes,
        "added_bytes": timing.added_bytes,
    }


def _rounded(logs: Array | None) -> list[list[float]] | None:
    return None if logs is None else np.round(logs, _DIGITS).tolist()


def _array(raw: Any) -> Array | None:
    if raw is None:
        return None
    logs = np.array(raw, dtype=np.float64)
    if logs.ndim != 2 or not logs.size or not np.isfinite(logs).all():
        raise ValueError(f"expected rounds of equally many numbers, got shape {logs.shape}")
    return logs

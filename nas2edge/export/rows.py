"""What an export made, as rows of a table over targets and precisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One target in one precision.

    Args:
        target: Its name.
        precision: Its name.
        files: Names of the files in the bundle; the first is the one that a runtime loads. Empty if not built.
        size_bytes: Of the files.
        runtime: What built it, with its version.
        accuracy: Top-1 in percent of the ONNX file that it was built from.
        parity: Cosine of its logits and those of the float32 network, the least of all images; None if it was not run.
        note: Why it was not built, or not run here; else empty.
    """

    target: str
    precision: str
    files: tuple[str, ...] = ()
    size_bytes: int = 0
    runtime: str = ""
    accuracy: float | None = None
    parity: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A latency on this machine, in milliseconds an image.

    Args:
        median_ms: Median.
        low_ms: First quartile.
        high_ms: Third quartile.
        runs: Timed runs.
        batch: Images in one run.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    batch: int

"""A network in one precision: its ONNX file, and what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.export.onnx_file import OnnxFile
from nas2edge.export.parity import ParityReport, Tolerance

PRECISIONS = ("fp32", "fp16", "int8")
DEFAULT_MAX_DROP = {"fp32": 0.1, "fp16": 0.1, "int8": 1.0}
"""Points of top-1 that a network may lose by default."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One precision of a network.

    Args:
        precision: One of `PRECISIONS`.
        model: The graph.
        file: Where it is written.
        logits: What it computes for the compared images, (N, classes).
        measured: What it computes for the images that accuracies are measured on, (M, classes).
        same: What another run of the same file may differ by.
        accuracy: Top-1 on them, in percent.
        parity: Against float32; None for float32 itself.
        details: How it was made, for the report.
    """

    precision: str
    model: onnx.ModelProto
    file: OnnxFile
    logits: Array
    measured: Array
    same: Tolerance
    accuracy: float
    parity: ParityReport | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def accuracy_of(logits: Array, labels: npt.NDArray[np.int64]) -> float:
    """Returns the top-1 accuracy in percent."""
    return 100.0 * float((logits.argmax(axis=1) == labels).mean())

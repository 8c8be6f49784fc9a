"""What an export is asked for, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas2edge.export.exporter import BatchRange
from nas2edge.export.rows import Row
from nas2edge.export.stages import Stage
from nas2edge.graph import DEFAULT_OPSET
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import LoadedSupernet


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export, and how.

    Args:
        file: The sub-network.
        supernet: Its weights.
        out: The bundle's folder.
        targets: Names of the targets; all go into the one bundle.
        data: Folder or zip file with calibration and validation images, if not those beside the weights.
        recalibrate: Calibration images to recalibrate on; None for all, 0 to keep the stored statistics.
        opset: Of the ONNX file.
        batch: Batch sizes that the artefacts must take; equal for a fixed batch.
        force: Replace a bundle of another network.
        options: Of the targets, such as {"builder": "trtexec"}.
        precisions: Names of the precisions; every target is built in each. The float32 file is written in any case.
        max_drop: Points of top-1 that a precision may lose; None for its default.
        calibrator: How int8 ranges are chosen: "auto", or a name of `ranges.CALIBRATORS`.
        int8_rest: What int8 leaves in float computes in: "fp32", or "fp16", which takes opset 19.
        keep_fp32: Blocks, or layers as `<block>.<op>`, that stay in float32 in any precision.
        with_preprocess: Let the ONNX file take pixels, uint8 (N, R, R, 3), and normalise them itself.
        labels: Names of the classes, if not those of the supernet.
        exporter: Who writes the graph: "own", or "torch" for `torch.onnx.export`.
    """

    file: SubnetFile
    supernet: LoadedSupernet
    out: Path
    targets: tuple[str, ...] = ("onnx",)
    data: Path | None = None
    recalibrate: int | None = None
    opset: int = DEFAULT_OPSET
    batch: BatchRange = (1, 1, 1)
    force: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    precisions: tuple[str, ...] = ("fp32",)
    max_drop: float | None = None
    calibrator: str = "auto"
    int8_rest: str = "fp32"
    keep_fp32: tuple[str, ...] = ()
    with_preprocess: bool = False
    labels: tuple[str, ...] | None = None
    exporter: str = "own"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.labels or self.supernet.info.classes


@dataclass(slots=True, kw_only=True)
class ExportResult:
    """What an export made.

    Args:
        folder: The bundle.
        stages: What was checked.
        accuracy: Top-1 in percent, of the "network", as "onnx", as "fp16" and "int8" if asked for, and how many
            "images" it was measured on.
        rows: What was made, by target and precision.
        changed: Names of files that are other than in the bundle of this name that was there before, but for those that
            differ from build to build; None if there was none of this sub-network.
        engine_errors: Why there is no engine, by target; empty if all that was asked for was built.
    """

    folder: Path
    stages: list[Stage] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    changed: list[str] | None = None
    engine_errors: dict[str, str] = field(default_factory=dict)

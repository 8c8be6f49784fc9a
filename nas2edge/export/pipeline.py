"""A sub-network's way from supernet to bundle, with a check after every step.

supernet slice = frozen (bit for bit) > recalibrated > folded > ONNX > simplified > input > accuracy, then for each
precision: reduced > runtimes > targets. The first step that changes the network beyond its tolerance fails the export:
`ParityError` names it and the blocks that differ, and the bundle is kept as `*.failed`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from nas2edge.costs import count
from nas2edge.export.bundle import (
    MANIFEST_NAME,
    MODEL_NAME,
    PAGE_NAME,
    PARITY_NAME,
    REPORT_NAME,
    building,
    changed_files,
)
from nas2edge.export.checks import check_request, load_targets
from nas2edge.export.exporter import Artefact, Exporter
from nas2edge.export.from_supernet import Frozen, freeze
from nas2edge.export.inputs import STORED_IMAGES, Inputs
from nas2edge.export.manifest import facts_of, manifest_dict, model_name, recorded_name, run_commands
from nas2edge.export.onnx_file import OnnxFile
from nas2edge.export.page import report_markdown
from nas2edge.export.precision import reduce_precision
from nas2edge.export.proof import Proof
from nas2edge.export.recipes import make_recipe
from nas2edge.export.request import ExportRequest, ExportResult
from nas2edge.export.stages import FAILED, Stage, report_dict
from nas2edge.export.to_onnx import bake_preprocess, check_accuracy, check_input, emit
from nas2edge.export.to_targets import build_target, onnx_row, run_everywhere, stage_name
from nas2edge.export.variant import DEFAULT_MAX_DROP, Variant
from nas2edge.files import write_json, write_text
from nas2edge.plan import plan
from nas2edge.subnet_file import subnet_to_dict

__all__ = ["ExportRequest", "ExportResult", "export"]

Array = npt.NDArray[Any]


def export(
    request: ExportRequest,
    *,
    on_stage: Callable[[Stage], None] = lambda stage: None,
    on_progress: Callable[[str], None] = lambda said: None,
) -> ExportResult:
    """Exports a sub-network to a bundle.

    Args:
        request: What to export.
        on_stage: Called after every stage.
        on_progress: Called with a few words on what a long build is at.

    Returns:
        The bundle; `engine_errors` is set where everything but an engine is complete.

    Raises:
        InputError: The bundle's name is taken, an option is out of range, or images are missing.
        CheckpointError: The weights do not fit the sub-network.
        ParityError: A stage changed the network beyond its tolerance; the bundle is kept as `<out>.failed`.
    """
    exporters = load_targets(request)
    for exporter in exporters:
        exporter.on_progress = on_progress
    check_request(request)
    with building(request.out) as folder:
        return _Export(request, exporters, folder, on_stage, on_progress).run()


@final
class _Export:
    """One export under way."""

    def __init__(
        self,
        request: ExportRequest,
        exporters: list[Exporter],
        folder: Path,
        on_stage: Callable[[Stage], None],
        on_progress: Callable[[str], None],
    ) -> None:
        self._request, self._exporters, self._folder = request, exporters, folder
        self._layers = plan(request.file.space, request.file.subnet)
        self._proof = Proof(folder, request.out, on_stage)
        self._proof.write_report, self._proof.on_progress = self._write_report, on_progress
        self._result = ExportResult(folder=request.out, stages=self._proof.stages)
        self._inputs = Inputs(
            request.supernet, self._layers[0].hw_in, data=request.data, pixels=request.with_preprocess
        )
        self._artefacts: list[Artefact] = []
        self._recorded: dict[str, Array] = {}

    def run(self) -> ExportResult:
        request, inputs = self._request, self._inputs
        frozen = freeze(request, inputs, self._proof)
        base = self._float32(frozen)
        self._recorded = {"images": inputs.fed, "logits": frozen.logits}
        for precision in dict.fromkeys(request.precisions):
            variant = base if precision == "fp32" else self._reduce(precision, base)
            run_everywhere(variant, request.batch, inputs, self._proof)
            self._build(variant, frozen.logits)
        recorded: dict[str, Any] = {name: value[:STORED_IMAGES] for name, value in self._recorded.items()}
        np.savez(self._folder / PARITY_NAME, **recorded)
        self._write_report()
        write_json(self._folder / MANIFEST_NAME, self._manifest())
        self._result.changed = changed_files(self._folder, request.out, subnet_id=request.file.subnet.id)
        return self._result

    def _float32(self, frozen: Frozen) -> Variant:
        request, inputs, proof = self._request, self._inputs, self._proof
        file = OnnxFile(self._folder / MODEL_NAME, request.batch)
        model = emit(request, frozen, file, inputs, proof)
        model = bake_preprocess(request, model, file)
        check_input(frozen, file, inputs, proof)
        resized = self._layers[0].hw_in != request.supernet.info.preprocess.image_size
        rounded = request.with_preprocess and resized
        base, before = check_accuracy(frozen, model, file, inputs, proof, rounded=rounded)
        self._result.accuracy |= {"network": before, "onnx": base.accuracy, "images": inputs.measured}
        return base

    def _reduce(self, precision: str, base: Variant) -> Variant:
        request, inputs = self._request, self._inputs
        recipe = make_recipe(request, precision, base, self._layers, inputs)
        file = OnnxFile(self._folder / model_name(precision), request.batch)
        allowed = DEFAULT_MAX_DROP[precision] if request.max_drop is None else request.max_drop
        variant = reduce_precision(recipe, base, file, self._layers, allowed, inputs, self._proof)
        self._result.accuracy[precision] = variant.accuracy
        self._recorded[recorded_name(precision)] = variant.logits
        return variant

    def _build(self, variant: Variant, reference: Array) -> None:
        """Builds every target of one precision; the ONNX file is always one, the first."""
        self._result.rows.append(onnx_row(variant, reference))
        self._artefacts.append(variant.file.artefact())
        for exporter in self._exporters:
            if exporter.name == "onnx":
                continue
            batch = self._request.batch
            row, artefact = build_target(exporter, variant, batch, self._inputs, self._proof, reference)
            self._result.rows.append(row)
            if artefact is None:
                self._result.engine_errors[stage_name(exporter.name, variant.precision)] = row.note
            else:
                self._artefacts.append(artefact)

    def _write_report(self) -> None:
        request, result = self._request, self._result
        title = f"{request.file.space.name} sub-network {request.file.subnet.id}, for {', '.join(request.targets)}"
        report = report_dict(
            result.stages, subnet=subnet_to_dict(request.file), accuracy=result.accuracy, rows=result.rows
        )
        write_json(self._folder / REPORT_NAME, report)
        failed = any(stage.verdict == FAILED for stage in result.stages)
        commands = {} if failed else run_commands(request)
        facts = facts_of(request, count(self._layers))
        page = report_markdown(title, facts, result.stages, commands, result.rows)
        write_text(self._folder / PAGE_NAME, page)

    def _manifest(self) -> dict[str, object]:
        unstable = {exporter.name for exporter in self._exporters if not exporter.hashable}
        unhashed = [file.name for made in self._artefacts if made.target in unstable for file in made.files]
        return manifest_dict(
            self._folder, self._request, costs=count(self._layers), artefacts=self._artefacts, unhashed=unhashed
        )

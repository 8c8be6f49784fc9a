"""A sub-network's way from supernet to bundle, with a check after every step.

supernet slice = frozen (bit for bit) > recalibrated > folded > ONNX > simplified > accuracy > targets. The first step
that changes the network beyond its tolerance fails the export: `ParityError` names it and the first block that
differs, and the bundle is kept as `*.failed`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np

from nas2edge.costs import count
from nas2edge.errors import CheckpointError, EngineNotBuiltError, InputError
from nas2edge.export.bundle import (
    MANIFEST_NAME,
    MODEL_NAME,
    PAGE_NAME,
    PARITY_NAME,
    REPORT_NAME,
    building,
    check_replaceable,
)
from nas2edge.export.exporter import Artefact, Exporter
from nas2edge.export.from_supernet import Frozen, freeze
from nas2edge.export.inputs import STORED_IMAGES, Inputs
from nas2edge.export.manifest import manifest_dict, run_commands
from nas2edge.export.proof import Proof
from nas2edge.export.registry import load_exporter
from nas2edge.export.request import ExportRequest, ExportResult
from nas2edge.export.stages import FAILED, Stage, report_dict, report_markdown
from nas2edge.export.to_onnx import OnnxFile, check_accuracy, emit
from nas2edge.export.to_targets import build_target
from nas2edge.files import write_json, write_text
from nas2edge.graph import check_opset
from nas2edge.plan import plan
from nas2edge.subnet_file import subnet_to_dict

__all__ = ["ExportRequest", "ExportResult", "export"]


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
    _check_request(request)
    with building(request.out) as folder:
        return _Export(request, exporters, folder, on_stage).run()


def load_targets(request: ExportRequest) -> list[Exporter]:
    """Returns the targets of a request, each with those of its options that it takes.

    Raises:
        UnknownNameError: There is no such target.
        InputError: None of them takes an option.
    """
    if not request.targets:
        raise InputError("no target was asked for; expected at least one")
    for name in request.targets:
        load_exporter(name)
    taken = {name: type(load_exporter(name)).options for name in request.targets}
    unknown = sorted(request.options.keys() - frozenset().union(*taken.values()))
    if unknown:
        named = " or ".join(repr(name) for name in request.targets)
        raise InputError(f"the target {named} takes no {unknown[0].replace('_', '-')}; leave it out")
    return [
        load_exporter(name, {key: value for key, value in request.options.items() if key in taken[name]})
        for name in dict.fromkeys(request.targets)
    ]


def _check_request(request: ExportRequest) -> None:
    check_opset(request.opset)
    if request.recalibrate == 1:
        raise InputError("recalibrate is 1; one image has no variance: use 2 or more, or 0 to keep the statistics")
    if request.file.space.digest != request.supernet.info.space.digest:
        raise CheckpointError(
            f"the sub-network is of space {request.file.space.name!r}, the supernet of "
            f"{request.supernet.info.space.name!r} with {request.supernet.info.space.num_classes} classes; "
            "give --supernet the one that it was searched with"
        )
    check_replaceable(request.out, subnet_id=request.file.subnet.id, force=request.force)


@final
class _Export:
    """One export under way."""

    def __init__(
        self, request: ExportRequest, exporters: list[Exporter], folder: Path, on_stage: Callable[[Stage], None]
    ) -> None:
        self._request, self._exporters, self._folder = request, exporters, folder
        self._layers = plan(request.file.space, request.file.subnet)
        self._proof = Proof(folder, request.out, on_stage)
        self._proof.write_report = self._write_report
        self._result = ExportResult(folder=request.out, stages=self._proof.stages)
        self._inputs = Inputs(request.supernet, self._layers[0].hw_in, data=request.data)

    def run(self) -> ExportResult:
        request, inputs, proof = self._request, self._inputs, self._proof
        frozen = freeze(request, inputs, proof)
        file = OnnxFile(self._folder / MODEL_NAME, request.batch)
        emit(request, frozen, file, inputs, proof)
        self._result.accuracy |= check_accuracy(frozen, file, inputs, proof)
        artefacts = self._targets(frozen, file)
        images, logits = inputs.sample[:STORED_IMAGES], frozen.logits[:STORED_IMAGES]
        np.savez(self._folder / PARITY_NAME, images=images, logits=logits)
        self._write_report()
        write_json(self._folder / MANIFEST_NAME, self._manifest(artefacts))
        return self._result

    def _targets(self, frozen: Frozen, file: OnnxFile) -> list[Artefact]:
        request = self._request
        artefacts = [load_exporter("onnx").build(file.path, batch=request.batch)]
        for exporter in self._exporters:
            if exporter.name == "onnx":
                continue
            built = build_target(exporter, file, request.batch, frozen.logits, self._inputs, self._proof)
            if isinstance(built, EngineNotBuiltError):
                self._result.engine_errors[exporter.name] = str(built)
            else:
                artefacts.append(built)
        return artefacts

    def _write_report(self) -> None:
        request, stages = self._request, self._result.stages
        side, costs = self._layers[0].hw_in, count(self._layers)
        facts = {
            "sub-network": f"{request.file.subnet.id} of space {request.file.space.name}",
            "weights": f"{request.supernet.info.source}, sha256 {request.supernet.info.sha256}",
            "input": f"float32 images (N, 3, {side}, {side}), RGB, normalised: see preprocess in {MANIFEST_NAME}",
            "size": f"{costs.macs:,} MACs, {costs.params:,} parameters",
        }
        report = report_dict(stages, subnet=subnet_to_dict(request.file), accuracy=self._result.accuracy)
        write_json(self._folder / REPORT_NAME, report)
        title = f"{request.file.space.name} sub-network {request.file.subnet.id}, for {', '.join(request.targets)}"
        failed = any(stage.verdict == FAILED for stage in stages)
        commands = {} if failed else run_commands(request.targets, batch=request.batch, resolution=side)
        write_text(self._folder / PAGE_NAME, report_markdown(title, facts, stages, commands))

    def _manifest(self, artefacts: list[Artefact]) -> dict[str, object]:
        unstable = {exporter.name for exporter in self._exporters if not exporter.hashable}
        return manifest_dict(
            self._folder,
            file=self._request.file,
            supernet=self._request.supernet.info,
            targets=self._request.targets,
            opset=self._request.opset,
            batch=self._request.batch,
            costs=count(self._layers),
            artefacts=artefacts,
            unhashed=[file.name for made in artefacts if made.target in unstable for file in made.files],
        )

"""A sub-network's way from supernet to bundle, with a check after every step.

supernet slice = frozen (bit for bit) > recalibrated > folded > ONNX > simplified > accuracy > target. The first step
that changes the network beyond its tolerance fails the export: `ParityError` names it and the first block that
differs, and the bundle is kept as `*.failed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import onnx
import torch

from nas2edge.costs import count
from nas2edge.errors import CheckpointError, EngineNotBuiltError, InputError, ParityError
from nas2edge.export.blame import blame, onnx_blocks, torch_blocks
from nas2edge.export.bundle import (
    MANIFEST_NAME,
    MODEL_NAME,
    PAGE_NAME,
    PARITY_NAME,
    REPORT_NAME,
    building,
    check_replaceable,
    keep_as_failed,
)
from nas2edge.export.exporter import Artefact, BatchRange, Exporter
from nas2edge.export.manifest import manifest_dict, model_metadata, run_commands
from nas2edge.export.parity import EXACT, FLOAT32, compare
from nas2edge.export.registry import load_exporter
from nas2edge.export.simplify import simplify
from nas2edge.export.stages import (
    FAILED,
    PASSED,
    SKIPPED,
    UNCHECKED,
    Stage,
    parity_stage,
    report_dict,
    report_markdown,
)
from nas2edge.files import write_json, write_text
from nas2edge.graph import BN_EPS, DEFAULT_OPSET, check_opset, fold_batch_norm, network_model
from nas2edge.plan import plan
from nas2edge.subnet_file import SubnetFile, subnet_to_dict
from nas2edge.supernet.blocks import resize
from nas2edge.supernet.checkpoint import LoadedSupernet
from nas2edge.supernet.evaluate import load_images, normalise
from nas2edge.supernet.images import ImageSet, has_split
from nas2edge.supernet.static import StaticNet, extract, recalibrate

PARITY_IMAGES = 64
"""Images whose logits are compared at every stage."""
ACCURACY_IMAGES = 2000
"""Validation images that the accuracy before and after is measured on, at most."""
MAX_ACCURACY_CHANGE = 0.1
"""Points of top-1 that a float32 export may gain or lose on them; one image may flip in any case."""
STORED_IMAGES = 4
_BATCH = 250
_NEUTRAL = {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - BN_EPS}

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export, and how.

    Args:
        file: The sub-network.
        supernet: Its weights.
        target: Name of the target.
        out: The bundle's folder.
        data: Folder or zip file with calibration and validation images, if not those beside the weights.
        recalibrate: Calibration images to recalibrate on; None for all, 0 to keep the stored statistics.
        opset: Of the ONNX file.
        batch: Batch sizes that the artefact must take; equal for a fixed batch.
        force: Replace a bundle of another network.
        options: Of the target, such as {"builder": "trtexec"}.
    """

    file: SubnetFile
    supernet: LoadedSupernet
    target: str
    out: Path
    data: Path | None = None
    recalibrate: int | None = None
    opset: int = DEFAULT_OPSET
    batch: BatchRange = (1, 1, 1)
    force: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class ExportResult:
    """What an export made.

    Args:
        folder: The bundle.
        stages: What was checked.
        accuracy: Top-1 in percent, of the "network" and as "onnx", and how many "images" it was measured on.
        engine_error: Why there is no engine; empty if there is one, or none was asked for.
    """

    folder: Path
    stages: list[Stage] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    engine_error: str = ""


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
        The bundle; `engine_error` is set where everything but the engine is complete.

    Raises:
        InputError: The bundle's name is taken, an option is out of range, or images are missing.
        CheckpointError: The weights do not fit the sub-network.
        ParityError: A stage changed the network beyond its tolerance; the bundle is kept as `<out>.failed`.
    """
    exporter = load_exporter(request.target, request.options)
    exporter.on_progress = on_progress
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
    with building(request.out) as folder:
        return _Export(request, exporter, folder, on_stage).run()


@final
class _Export:
    """One export under way."""

    def __init__(
        self, request: ExportRequest, exporter: Exporter, folder: Path, on_stage: Callable[[Stage], None]
    ) -> None:
        self._request, self._exporter, self._folder, self._on_stage = request, exporter, folder, on_stage
        self._onnx = load_exporter("onnx")
        self._path = folder / MODEL_NAME
        self._layers = plan(request.file.space, request.file.subnet)
        self._result = ExportResult(folder=request.out)
        self._started = time.perf_counter()
        self._images = load_images(request.supernet, "validation", data=request.data)
        self._sample = self._prepared(self._images, _spread(len(self._images), PARITY_IMAGES))

    def run(self) -> ExportResult:
        net = self._freeze()
        self._recalibrate(net)
        reference = _torch_logits(net, self._sample)
        folded = self._fold(net, reference)
        emitted = self._emit(net, folded, reference)
        self._simplify(net, emitted)
        self._accuracy(net)
        artefacts = self._target(reference)
        np.savez(self._folder / PARITY_NAME, images=self._sample[:STORED_IMAGES], logits=reference[:STORED_IMAGES])
        self._write_report()
        write_json(self._folder / MANIFEST_NAME, self._manifest(artefacts))
        return self._result

    def _freeze(self) -> StaticNet:
        supernet, subnet = self._request.supernet.model, self._request.file.subnet
        net = extract(supernet, subnet)
        with torch.no_grad():
            sliced = supernet(torch.from_numpy(self._sample), subnet).numpy()
        note = f"{len(net.state_dict())} tensors of the supernet"
        report = compare(sliced, _torch_logits(net, self._sample), tolerance=EXACT)
        self._add(parity_stage("freeze", report, seconds=self._lap(), note=note))
        return net

    def _recalibrate(self, net: StaticNet) -> None:
        n = self._request.recalibrate
        if n == 0:
            self._add(Stage(name="recalibrate", verdict=SKIPPED, summary="the stored statistics are kept, as asked"))
            return
        data = self._request.data
        own = data if data is not None and has_split(data, "calibration") else None
        images = load_images(self._request.supernet, "calibration", data=own)
        chosen = _spread(len(images), n or len(images))
        preprocess = self._request.supernet.info.preprocess
        batches = (normalise(_subset(images, part), preprocess) for part in _parts(chosen))
        recalibrate(net, batches)
        summary = f"batch-normalisation statistics from {len(chosen)} calibration images"
        self._add(Stage(name="recalibrate", verdict=PASSED, summary=summary, seconds=self._lap()))

    def _fold(self, net: StaticNet, reference: Array) -> dict[str, Array]:
        folded = fold_batch_norm(self._layers, {name: value.numpy() for name, value in net.state_dict().items()})
        other = _with_folded(net, folded)
        self._compare(
            "fold",
            reference,
            _torch_logits(other, self._sample),
            blamed=lambda: blame(torch_blocks(net, self._sample), torch_blocks(other, self._sample)),
        )
        return folded

    def _emit(self, net: StaticNet, folded: Mapping[str, Array], reference: Array) -> onnx.ModelProto:
        low, _, high = self._request.batch
        model = network_model(
            self._layers,
            folded,
            opset=self._request.opset,
            batch=low if low == high else None,
            metadata=model_metadata(self._request.file, self._request.supernet.info),
        )
        note = f"opset {self._request.opset}, {len(model.graph.node)} nodes"
        self._compare_model("onnx", net, model, reference, note=note)
        return model

    def _simplify(self, net: StaticNet, emitted: onnx.ModelProto) -> None:
        simplified = simplify(emitted)
        if simplified.model is emitted:
            verdict = PASSED if simplified.tried else SKIPPED
            self._add(Stage(name="simplify", verdict=verdict, summary=simplified.note, seconds=self._lap()))
            return
        self._compare_model("simplify", net, simplified.model, self._run_onnx(self._sample), note=simplified.note)

    def _accuracy(self, net: StaticNet) -> None:
        chosen = _spread(len(self._images), ACCURACY_IMAGES)
        right = {"network": 0, "onnx": 0}
        for part in _parts(chosen):
            images, labels = self._prepared(self._images, part), self._images.labels[part]
            right["network"] += int((_torch_logits(net, images).argmax(axis=1) == labels).sum())
            right["onnx"] += int((self._run_onnx(images).argmax(axis=1) == labels).sum())
        before, after = (100.0 * right[name] / len(chosen) for name in ("network", "onnx"))
        self._result.accuracy |= {"network": before, "onnx": after, "images": len(chosen)}
        allowed = max(MAX_ACCURACY_CHANGE, 100.0 / len(chosen))
        verdict = PASSED if abs(after - before) <= allowed + 1e-9 else FAILED
        of = "" if len(chosen) == len(self._images) else f" of {len(self._images)}"
        summary = f"top-1 {before:.2f} % before, {after:.2f} % as ONNX, on {len(chosen)}{of} validation images"
        details = {**self._result.accuracy, "max_change": allowed, "passed": verdict == PASSED}
        self._add(Stage(name="accuracy", verdict=verdict, summary=summary, seconds=self._lap(), details=details))

    def _target(self, reference: Array) -> list[Artefact]:
        onnx_artefact = self._onnx.build(self._path, batch=self._request.batch)
        name = self._exporter.name
        if name == self._onnx.name:
            return [onnx_artefact]
        try:
            artefact = self._exporter.build(self._path, batch=self._request.batch)
        except EngineNotBuiltError as err:
            self._result.engine_error = str(err)
            summary = str(err).splitlines()[0]
            self._add(Stage(name=name, verdict=SKIPPED, summary=summary, seconds=self._lap()))
            return [onnx_artefact]
        if artefact.why_not_run:
            size = sum(file.stat().st_size for file in artefact.files) / 1e6
            summary = f"{artefact.files[0].name} ({size:.1f} MB) by {artefact.runtime}; {artefact.why_not_run}"
            self._add(Stage(name=name, verdict=UNCHECKED, summary=summary, seconds=self._lap(),
                            details=dict(artefact.notes)))  # fmt: skip
            return [onnx_artefact, artefact]
        logits = self._exporter.run(artefact, self._sample)
        if logits.shape != reference.shape:
            summary = f"{artefact.runtime}: it returns shape {logits.shape}, expected {reference.shape}"
            self._add(Stage(name=name, verdict=FAILED, summary=summary, seconds=self._lap()))
        self._compare(name, reference, logits, note=artefact.runtime)
        return [onnx_artefact, artefact]

    def _run_onnx(self, images: Array) -> Array:
        return self._onnx.run(self._onnx.build(self._path, batch=self._request.batch), images)

    def _compare_model(self, name: str, net: StaticNet, model: onnx.ModelProto, reference: Array, *, note: str) -> None:
        onnx.checker.check_model(model)
        self._path.write_bytes(model.SerializeToString(deterministic=True))
        few = self._sample[:STORED_IMAGES]
        self._compare(
            name,
            reference,
            self._run_onnx(self._sample),
            note=note,
            blamed=lambda: blame(torch_blocks(net, few), onnx_blocks(model, self._layers, few)),
        )

    def _compare(
        self, name: str, reference: Array, other: Array, *, note: str = "", blamed: Callable[[], str] = str
    ) -> None:
        report = compare(reference, other, tolerance=FLOAT32)
        notes = [note] if report.passed else [note, blamed()]
        note = "; ".join(part for part in notes if part)
        self._add(parity_stage(name, report, seconds=self._lap(), note=note))

    def _add(self, stage: Stage) -> None:
        self._result.stages.append(stage)
        self._on_stage(stage)
        if stage.verdict == FAILED:
            self._write_report()
            failed = keep_as_failed(self._folder, self._request.out)
            older = f"; the older bundle in {self._request.out} is as it was" if self._request.out.exists() else ""
            raise ParityError(
                f"the export failed at the stage {stage.name!r}: {stage.summary}. No bundle was written; what there "
                f"is, with a report, lies in {failed}{older}"
            )

    def _prepared(self, images: ImageSet, indices: npt.NDArray[np.int64]) -> Array:
        normalised = normalise(_subset(images, indices), self._request.supernet.info.preprocess)
        return resize(normalised, self._layers[0].hw_in).contiguous().numpy()

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        return seconds

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
        title = f"{request.file.space.name} sub-network {request.file.subnet.id}, for {request.target}"
        failed = any(stage.verdict == FAILED for stage in stages)
        commands = {} if failed else run_commands(request.target, batch=request.batch, resolution=side)
        write_text(self._folder / PAGE_NAME, report_markdown(title, facts, stages, commands))

    def _manifest(self, artefacts: list[Artefact]) -> dict[str, object]:
        unstable = [] if self._exporter.hashable else [file.name for file in artefacts[-1].files]
        return manifest_dict(
            self._folder,
            file=self._request.file,
            supernet=self._request.supernet.info,
            target=self._request.target,
            opset=self._request.opset,
            batch=self._request.batch,
            costs=count(self._layers),
            artefacts=artefacts,
            unhashed=unstable if len(artefacts) > 1 else [],
        )


def _torch_logits(net: StaticNet, images: Array) -> Array:
    with torch.no_grad():
        return torch.cat([net(batch) for batch in torch.split(torch.from_numpy(images), _BATCH)]).numpy()


def _spread(n: int, wanted: int) -> npt.NDArray[np.int64]:
    """Returns evenly spaced indices: images stand sorted by class, so these are of all classes."""
    return np.linspace(0, n - 1, min(n, wanted)).astype(np.int64)


def _parts(indices: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Divides indices into equal batches: the average over batches gives each image the same weight."""
    return np.array_split(indices, -(-len(indices) // _BATCH))


def _subset(images: ImageSet, indices: npt.NDArray[np.int64]) -> ImageSet:
    return ImageSet(pixels=images.pixels[indices], labels=images.labels[indices], classes=images.classes)


def _with_folded(net: StaticNet, folded: Mapping[str, Array]) -> StaticNet:
    """Returns a copy that runs the folded weights: its normalisations do nothing but add the folded biases."""
    copy = StaticNet(net.layers).eval()
    state = dict(net.state_dict())
    for name in state:
        op, norm, part = name.rpartition(".bn.")
        if not norm:
            state[name] = torch.from_numpy(folded[name])
        elif part == "bias":
            state[name] = torch.from_numpy(folded[f"{op}.bias"])
        elif part in _NEUTRAL:
            state[name] = torch.full_like(state[name], _NEUTRAL[part])
    copy.load_state_dict(state)
    return copy

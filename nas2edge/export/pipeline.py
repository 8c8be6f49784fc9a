"""A sub-network's way from supernet to bundle, with a check after every step.

supernet slice = frozen (bit for bit) > recalibrated > folded > ONNX > simplified > accuracy > target. The first step
that changes the network beyond its tolerance fails the export: `ParityError` names it, and the bundle is kept as
`*.failed`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from nas2edge._version import __version__
from nas2edge.costs import Costs, count
from nas2edge.errors import CheckpointError, EngineNotBuiltError, ParityError
from nas2edge.export.bundle import (
    FORMAT,
    MANIFEST_NAME,
    MODEL_NAME,
    PARITY_NAME,
    REPORT_NAME,
    VERSION,
    building,
    check_replaceable,
    keep_as_failed,
)
from nas2edge.export.exporter import Artefact, BatchRange, Exporter
from nas2edge.export.parity import EXACT, FLOAT32, compare
from nas2edge.export.registry import load_exporter
from nas2edge.export.simplify import simplify
from nas2edge.export.stages import FAILED, PASSED, SKIPPED, Stage, parity_stage, report_dict, report_markdown
from nas2edge.files import write_json, write_text
from nas2edge.graph import BN_EPS, DEFAULT_OPSET, fold_batch_norm, network_model
from nas2edge.plan import plan
from nas2edge.subnet_file import SubnetFile, subnet_to_dict
from nas2edge.supernet.blocks import resize
from nas2edge.supernet.checkpoint import LoadedSupernet
from nas2edge.supernet.evaluate import load_images, normalise
from nas2edge.supernet.static import StaticNet, extract, recalibrate

PARITY_IMAGES = 64
STORED_IMAGES = 4
MAX_ACCURACY_CHANGE = 0.1
"""Points of top-1 that a float32 export may gain or lose on the validation images."""
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


@dataclass(slots=True, kw_only=True)
class ExportResult:
    """What an export made.

    Args:
        folder: The bundle.
        stages: What was checked.
        accuracy: Top-1 in percent on the validation images: "network", and the target's or "onnx".
        engine_error: Why there is no engine; empty if there is one, or none was asked for.
    """

    folder: Path
    stages: list[Stage] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    engine_error: str = ""


def export(request: ExportRequest, *, on_stage: Callable[[Stage], None] = lambda stage: None) -> ExportResult:
    """Exports a sub-network to a bundle.

    Args:
        request: What to export.
        on_stage: Called after every stage.

    Returns:
        The bundle; `engine_error` is set where everything but the engine is complete.

    Raises:
        InputError: The bundle's name is taken, an option is out of range, or images are missing.
        CheckpointError: The weights do not fit the sub-network.
        ParityError: A stage changed the network beyond its tolerance; the bundle is kept as `<out>.failed`.
    """
    exporter = load_exporter(request.target)
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
        self._layers = plan(request.file.space, request.file.subnet)
        self._result = ExportResult(folder=request.out)
        self._started = time.perf_counter()
        preprocess = request.supernet.info.preprocess
        images = load_images(request.supernet, "validation", data=request.data)
        self._labels = images.labels
        self._images = _resized(normalise(images, preprocess), self._layers[0].hw_in)
        # Images stand sorted by class: evenly spaced ones are of all classes.
        self._sample = self._images[np.linspace(0, len(images) - 1, min(PARITY_IMAGES, len(images))).astype(int)]
        self._costs: Costs = count(self._layers)

    def run(self) -> ExportResult:
        net = self._freeze()
        self._recalibrate(net)
        reference = _torch_logits(net, self._sample)
        state = {name: value.numpy() for name, value in net.state_dict().items()}
        folded = fold_batch_norm(self._layers, state)
        self._compare("fold", reference, _torch_logits(_with_folded(net, folded), self._sample))
        model = network_model(
            self._layers,
            folded,
            opset=self._request.opset,
            batch=None if self._request.batch[0] != self._request.batch[2] else self._request.batch[0],
            metadata=self._metadata(),
        )
        path = self._folder / MODEL_NAME
        emitted = self._save_and_run(model, path)
        self._compare("onnx", reference, emitted, note=f"opset {self._request.opset}, {len(model.graph.node)} nodes")
        self._simplify(model, path, emitted)
        self._accuracy(net, path)
        artefacts = self._target(path, reference)
        np.savez(
            self._folder / PARITY_NAME,
            images=self._sample[:STORED_IMAGES],
            logits=reference[:STORED_IMAGES],
        )
        self._write_report(artefacts)
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
        info = self._request.supernet.info
        images = normalise(load_images(self._request.supernet, "calibration", data=self._request.data), info.preprocess)
        images = images[torch.linspace(0, len(images) - 1, min(n or len(images), len(images))).long()]
        recalibrate(net, torch.split(images, _BATCH))
        summary = f"batch-normalisation statistics from {len(images)} calibration images"
        self._add(Stage(name="recalibrate", verdict=PASSED, summary=summary, seconds=self._lap()))

    def _simplify(self, model: onnx.ModelProto, path: Path, emitted: Array) -> None:
        simplified, note = simplify(model)
        if simplified is model:
            self._add(Stage(name="simplify", verdict=PASSED, summary=note, seconds=self._lap()))
            return
        self._compare("simplify", emitted, self._save_and_run(simplified, path), note=note)

    def _accuracy(self, net: StaticNet, path: Path) -> None:
        artefact = self._onnx.build(path, batch=self._request.batch)
        before = self._top1(_torch_logits(net, self._images))
        after = self._top1(self._onnx.run(artefact, self._images))
        self._result.accuracy |= {"network": before, "onnx": after}
        verdict = PASSED if abs(after - before) <= MAX_ACCURACY_CHANGE else FAILED
        summary = f"top-1 {before:.2f} % before, {after:.2f} % as ONNX, on {len(self._labels)} validation images"
        self._add(Stage(name="accuracy", verdict=verdict, summary=summary, seconds=self._lap()))

    def _target(self, path: Path, reference: Array) -> list[Artefact]:
        onnx_artefact = self._onnx.build(path, batch=self._request.batch)
        if self._exporter.name == self._onnx.name:
            return [onnx_artefact]
        try:
            artefact = self._exporter.build(path, batch=self._request.batch)
        except EngineNotBuiltError as err:
            self._result.engine_error = str(err)
            summary = str(err).splitlines()[0]
            self._add(Stage(name=self._exporter.name, verdict=SKIPPED, summary=summary, seconds=self._lap()))
            return [onnx_artefact]
        if artefact.why_not_run:
            size = sum(file.stat().st_size for file in artefact.files) / 1e6
            summary = f"{artefact.files[0].name} ({size:.1f} MB) by {artefact.runtime}; {artefact.why_not_run}"
            self._add(Stage(name=self._exporter.name, verdict=PASSED, summary=summary, seconds=self._lap(),
                            details=dict(artefact.notes)))  # fmt: skip
        else:
            self._compare(self._exporter.name, reference, self._exporter.run(artefact, self._sample),
                          note=artefact.runtime)  # fmt: skip
        return [onnx_artefact, artefact]

    def _save_and_run(self, model: onnx.ModelProto, path: Path) -> Array:
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return self._onnx.run(self._onnx.build(path, batch=self._request.batch), self._sample)

    def _compare(self, name: str, reference: Array, other: Array, *, note: str = "") -> None:
        report = compare(reference, other, tolerance=FLOAT32)
        self._add(parity_stage(name, report, seconds=self._lap(), note=note))

    def _add(self, stage: Stage) -> None:
        self._result.stages.append(stage)
        self._on_stage(stage)
        if stage.verdict == FAILED:
            self._write_report([])
            failed = keep_as_failed(self._folder, self._request.out)
            raise ParityError(
                f"the export failed at the stage {stage.name!r}: {stage.summary}. No bundle was written; what there "
                f"is, with a report, lies in {failed}"
            )

    def _top1(self, logits: Array) -> float:
        return 100.0 * float((logits.argmax(axis=1) == self._labels).mean())

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        return seconds

    def _metadata(self) -> dict[str, str]:
        info = self._request.supernet.info
        resolution = self._layers[0].hw_in
        return {
            "nas2edge.labels": json.dumps(list(info.classes)),
            "nas2edge.preprocess": json.dumps(_preprocess_dict(self._request.supernet, resolution)),
            "nas2edge.space": info.space.name,
            "nas2edge.subnet": json.dumps(self._request.file.subnet.to_dict()),
            "nas2edge.subnet_id": self._request.file.subnet.id,
            "nas2edge.supernet_sha256": info.sha256,
            "nas2edge.version": __version__,
        }

    def _write_report(self, artefacts: list[Artefact]) -> None:
        subnet = subnet_to_dict(self._request.file)
        facts = {
            "sub-network": f"{self._request.file.subnet.id} of space {self._request.file.space.name}",
            "input": f"float32 images (N, 3, {self._layers[0].hw_in}, {self._layers[0].hw_in}), RGB, normalised; "
            "see preprocess in manifest.json",
            "size": f"{self._costs.macs:,} MACs, {self._costs.params:,} parameters",
        }
        facts |= {f"top-1 ({name})": f"{value:.2f} %" for name, value in self._result.accuracy.items()}
        stages = self._result.stages
        write_json(self._folder / REPORT_NAME, report_dict(stages, subnet=subnet, accuracy=self._result.accuracy))
        title = (
            f"{self._request.file.space.name} sub-network {self._request.file.subnet.id}, for {self._request.target}"
        )
        write_text(self._folder / "report.md", report_markdown(title, facts, stages, _commands(artefacts)))
        if all(stage.verdict != FAILED for stage in stages):
            write_json(self._folder / MANIFEST_NAME, self._manifest(subnet, artefacts))

    def _manifest(self, subnet: Mapping[str, Any], artefacts: list[Artefact]) -> dict[str, Any]:
        unstable = {file.name for artefact in artefacts if artefact.target == self._exporter.name
                    and not self._exporter.hashable for file in artefact.files}  # fmt: skip
        return {
            "format": FORMAT,
            "version": VERSION,
            "target": self._request.target,
            "subnet": dict(subnet),
            "supernet": {"source": self._request.supernet.info.source, "sha256": self._request.supernet.info.sha256},
            "classes": list(self._request.supernet.info.classes),
            "preprocess": _preprocess_dict(self._request.supernet, self._layers[0].hw_in),
            "opset": self._request.opset,
            "batch": list(self._request.batch),
            "costs": asdict(self._costs),
            "artefacts": [
                {
                    "target": artefact.target,
                    "files": [file.name for file in artefact.files],
                    "runtime": artefact.runtime,
                    "run_here": not artefact.why_not_run,
                    "notes": dict(artefact.notes),
                }
                for artefact in artefacts
            ],
            "files": {
                file.name: _describe(file, hashed=file.name not in unstable)
                for file in sorted(self._folder.iterdir())
                if file.name != MANIFEST_NAME
            },  # fmt: skip
            "tool": {"nas2edge": __version__, "torch": torch.__version__, "onnx": onnx.__version__},
        }


def _torch_logits(net: StaticNet, images: Array) -> Array:
    with torch.no_grad():
        return torch.cat([net(batch) for batch in torch.split(torch.from_numpy(images), _BATCH)]).numpy()


def _resized(images: Tensor, resolution: int) -> Array:
    return resize(images, resolution).contiguous().numpy()


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


def _preprocess_dict(supernet: LoadedSupernet, resolution: int) -> dict[str, Any]:
    preprocess = supernet.info.preprocess
    return {
        "layout": "NCHW",
        "colour": "RGB",
        "scale": "divide by 255, subtract mean, divide by std",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "crop": preprocess.image_size,
        "resize": f"bicubic (a = -0.75, align_corners off, no antialias) from {preprocess.image_size} to {resolution}",
        "resolution": resolution,
    }


def _describe(file: Path, *, hashed: bool) -> dict[str, Any]:
    size = {"bytes": file.stat().st_size}
    return {**size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} if hashed else size


def _commands(artefacts: list[Artefact]) -> dict[str, str]:
    check = (
        "import numpy as np, onnxruntime as ort\n"
        'recorded = np.load("parity.npz")\n'
        'session = ort.InferenceSession("model.onnx")\n'
        'got = np.concatenate([session.run(None, {"images": image[None]})[0] for image in recorded["images"]])\n'
        'print("greatest difference:", abs(got - recorded["logits"]).max())\n'
    )
    commands = {"Compare with the recorded outputs": f"python - <<'END'\n{check}END"} if artefacts else {}
    for artefact in artefacts:
        if artefact.target == "trt":
            commands["Build and time an engine on the device itself"] = (
                "trtexec --onnx=model.onnx --saveEngine=model.engine --useCudaGraph --noDataTransfers"
            )
    return commands

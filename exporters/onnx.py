"""ONNX itself as a target: the bundle's model.onnx, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from nas2edge.export.exporter import Artefact, BatchRange, Exporter


@final
class OnnxExporter(Exporter):
    """Adds nothing to the ONNX file; runs it."""

    name = "onnx"

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Returns the model as its own artefact."""
        return Artefact(target=self.name, files=(model,), runtime=f"onnxruntime {ort.__version__}")

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the model on one thread, so that the same machine gives the same bits each time."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(str(artefact.files[0]), options, providers=["CPUExecutionProvider"])
        (model_input,) = session.get_inputs()
        fixed = model_input.shape[0]
        if not isinstance(fixed, int):
            return np.asarray(session.run(None, {model_input.name: images})[0])
        padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % fixed, axis=0)])
        parts = np.split(padded, len(padded) // fixed)
        return np.concatenate([session.run(None, {model_input.name: part})[0] for part in parts])[: len(images)]

"""ONNX itself as a target: the bundle's model.onnx, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from nas2edge.errors import InputError
from nas2edge.export.exporter import Artefact, BatchRange, Exporter

_CHUNK = 64
_REFUSALS = (ort_errors.Fail, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf, ort_errors.NotImplemented)


@final
class OnnxExporter(Exporter):
    """Adds nothing to the ONNX file; runs it."""

    name = "onnx"

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Returns the model as its own artefact."""
        return Artefact(target=self.name, files=(model,), runtime=f"onnxruntime {ort.__version__}")

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the model on one thread, so that the same machine gives the same bits each time.

        Raises:
            InputError: The installed ONNX Runtime does not read the model, such as for an opset newer than itself.
        """
        session = _session(artefact.files[0])
        (model_input,) = session.get_inputs()
        fixed = model_input.shape[0]
        size = fixed if isinstance(fixed, int) else min(_CHUNK, len(images))
        filling = -len(images) % size if isinstance(fixed, int) else 0
        padded = np.concatenate([images, np.repeat(images[-1:], filling, axis=0)])
        parts = [padded[i : i + size] for i in range(0, len(padded), size)]
        return np.concatenate([session.run(None, {model_input.name: part})[0] for part in parts])[: len(images)]


def _session(model: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except _REFUSALS as err:
        raise InputError(
            f"onnxruntime {ort.__version__} does not run the ONNX file: {str(err).splitlines()[0]}; "
            "give a lower --opset, or install a newer onnxruntime"
        ) from err

"""ONNX itself as a target: the bundle's model.onnx, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from nas2edge.errors import InputError, RuntimeFailedError
from nas2edge.export.exporter import Artefact, BatchRange, Exporter
from nas2edge.runtimes import open_session, run_all


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
        try:
            session = open_session(artefact.files[0], runtime="onnxruntime")
        except RuntimeFailedError as err:
            raise InputError(f"{err}; give a lower --opset, or install a newer onnxruntime") from err
        with session:
            return run_all(session, images)

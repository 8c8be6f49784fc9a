"""ONNX Runtime's own format, for its Android, iOS and web packages: loaded as it is, with nothing left to optimise."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from nas2edge.errors import RuntimeFailedError
from nas2edge.export.exporter import Artefact, BatchRange, Exporter
from nas2edge.runtimes import open_session
from nas2edge.runtimes.ort import FAILURES

from ._common import refused, run_artefact


@final
class OrtExporter(Exporter):
    """Writes `model.ort`: fused, but in no layout of one kind of processor, so that it runs on all.

    Two builds differ in the order of their operator tables, so the file is not hashed.
    """

    name = "ort"
    hashable = False

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Optimises and saves the model; every batch size that the ONNX file takes, the result takes too."""
        target = model.with_suffix(".ort")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # The level above, ALL, adds the layouts of the processor that does the optimising.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except FAILURES as err:
            said = (str(err).splitlines() or [type(err).__name__])[0]
            raise refused(self.name, f"onnxruntime {ort.__version__} does not convert the ONNX file: {said}") from err
        return Artefact(target=self.name, files=(target,), runtime=f"onnxruntime {ort.__version__}")

    def ask(self, model: Path) -> tuple[str, list[str]] | None:
        """Asks ONNX Runtime whether it loads the file."""
        try:
            with open_session(model, runtime="onnxruntime"):
                return f"onnxruntime {ort.__version__}", []
        except RuntimeFailedError as err:
            return f"onnxruntime {ort.__version__}", [str(err)]

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the model on one thread."""
        return run_artefact(artefact, images, runtime="onnxruntime")

"""TensorFlow Lite, now LiteRT, for Android and iOS: converted by litert-torch, the converter that LiteRT maintains."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from nas2edge.export.exporter import Artefact, BatchRange, Exporter

from ._common import check_fixed, lint_first, need, refused, run_artefact

_TIMEOUT_S = 1800.0


@final
class TfliteExporter(Exporter):
    """Writes `model.tflite`, float32, whose input is (N, 3, R, R) as in the ONNX file."""

    name = "tflite"

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Converts the model, in a process of its own.

        Raises:
            EngineNotBuiltError: The converter is missing or fails, or the model has a range of batch sizes, a precision
                other than float32, or an operator that is not translated.
        """
        need("litert_torch", "ai_edge_litert", "torch", extra="tflite", target=self.name)
        check_fixed(batch, target=self.name)
        lint_first(model, self.name, name=self.name)
        target = model.with_suffix(".tflite")
        self.on_progress("litert-torch converts the network")
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, "model.tflite")
            _convert(model, made)
            target.write_bytes(made.read_bytes())
        return Artefact(
            target=self.name,
            files=(target,),
            runtime=f"LiteRT {version('ai-edge-litert')}",
            notes={"converter": f"litert-torch {version('litert-torch')}"},
        )

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the model on one thread, by XNNPACK."""
        return run_artefact(artefact, images, runtime="litert")


def _convert(source: Path, target: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "nas2edge.exporters._litert_convert", str(source), str(target)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_TIMEOUT_S
        )  # fmt: skip
    except subprocess.TimeoutExpired as err:
        raise refused("tflite", f"litert-torch did not end within {_TIMEOUT_S:.0f} s") from err
    if done.returncode or not target.is_file():
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise refused("tflite", f"litert-torch ended with code {done.returncode}: {said[-1] if said else 'no reason'}")

"""What float16 and int8 cost the embedded supernet in accuracy, by calibrator: five sub-networks, 2,000 images.

python benchmarks/precision.py            # about five minutes; writes benchmarks/precision_results.json
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from nas2edge.costs import count
from nas2edge.export.inputs import Inputs
from nas2edge.export.int8 import CALIBRATION_IMAGES, Int8
from nas2edge.export.onnx_file import run_model
from nas2edge.export.parity import INT8, compare
from nas2edge.export.pipeline import ExportRequest, export
from nas2edge.export.ranges import CALIBRATORS
from nas2edge.export.variant import accuracy_of
from nas2edge.plan import plan
from nas2edge.space import SubnetConfig
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import LoadedSupernet, load_supernet

RESULTS = Path(__file__).with_name("precision_results.json")
SEED = 0


def main() -> None:
    torch.set_num_threads(1)
    supernet = load_supernet()
    space = supernet.info.space
    drawn = space.decode(space.sample(3, np.random.default_rng(SEED)))
    found = _measured(supernet.info.sha256)
    for subnet in (space.smallest(), space.largest(), *drawn):
        if subnet.id not in found:
            found[subnet.id] = measure(supernet, subnet)
            results = {"supernet_sha256": supernet.info.sha256, "subnets": list(found.values())}
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def _measured(sha256: str) -> dict[str, dict[str, Any]]:
    """Returns what an earlier run has measured of these weights, by sub-network."""
    if not RESULTS.exists():
        return {}
    read = json.loads(RESULTS.read_text())
    return {row["id"]: row for row in read["subnets"]} if read["supernet_sha256"] == sha256 else {}


def measure(supernet: LoadedSupernet, subnet: SubnetConfig) -> dict[str, Any]:
    """Exports a sub-network in all precisions, and quantises it by every calibrator."""
    file, layers = SubnetFile(space=supernet.info.space, subnet=subnet), plan(supernet.info.space, subnet)
    with tempfile.TemporaryDirectory() as folder:
        request = ExportRequest(file=file, supernet=supernet, out=Path(folder, "b"), precisions=("fp16", "int8"))
        done = export(request)
        model = onnx.load(done.folder / "model.onnx")
    chosen = next(stage.details["calibrator"] for stage in done.stages if stage.name == "int8")
    row = {
        "id": subnet.id,
        "macs": count(layers).macs,
        "fp32": done.accuracy["onnx"],
        "fp16": done.accuracy["fp16"],
        "int8": done.accuracy["int8"],
        "auto": chosen,
        "calibrators": dict(by_calibrator(supernet, model, subnet)),
    }
    print(json.dumps(row), flush=True)
    return row


def by_calibrator(
    supernet: LoadedSupernet, model: onnx.ModelProto, subnet: SubnetConfig
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields accuracy in percent and SQNR in decibels by calibrator."""
    inputs = Inputs(supernet, subnet.resolution)
    images, layers = inputs.calibration(CALIBRATION_IMAGES), plan(supernet.info.space, subnet)
    parts = [part.fed for part in inputs.parts()]
    reference = np.concatenate([run_model(model, part) for part in parts])
    for name in CALIBRATORS:
        made = Int8(model, layers, images, calibrator=name).make(()).model
        logits = np.concatenate([run_model(made, part) for part in parts])
        sqnr = compare(reference, logits, tolerance=INT8).sqnr_db
        yield name, {"accuracy": accuracy_of(logits, inputs.labels), "sqnr_db": sqnr}


if __name__ == "__main__":
    main()

"""TensorRT's parser and builder take every precision: asked of TensorRT-RTX, which needs no GPU to build."""

from dataclasses import replace
from pathlib import Path

import pytest

from nas2edge.export.pipeline import ExportRequest, export
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import load_supernet
from tests.export_run import write_run

pytest.importorskip("tensorrt_rtx", reason="no builder without it: pip install 'nas2edge[trt-rtx]'")

SPACE = load_space("tiny")


@pytest.fixture(scope="module")
def request_of(tmp_path_factory):
    loaded = load_supernet(str(write_run(tmp_path_factory.mktemp("run"), images=2)))
    request = ExportRequest(file=SubnetFile(space=SPACE, subnet=SPACE.smallest()), supernet=loaded, out=Path("unset"))
    return lambda **changes: replace(request, targets=("trt",), precisions=("fp16", "int8"), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="as usual"),
        pytest.param({"opset": 13, "batch": (1, 2, 4)}, id="oldest opset, open batch"),
        pytest.param({"with_preprocess": True}, id="pixels"),
        pytest.param({"opset": 19, "int8_rest": "fp16"}, id="int8 beside float16"),
        pytest.param({"exporter": "torch"}, id="graph by torch"),
    ],
)
def test_engines_are_built_in_every_precision(request_of, tmp_path, changes):
    done = export(request_of(out=tmp_path / "bundle", **changes))

    assert not done.engine_errors
    built = {(row.precision, row.files[0]) for row in done.rows if row.target == "trt"}
    assert built == {("fp16", "model.fp16.engine"), ("int8", "model.int8.engine")}
    assert all((done.folder / name).stat().st_size > 100_000 for _, name in built)

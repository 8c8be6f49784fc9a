"""nas2edge export: exit codes, what goes to which stream, and what it refuses before doing anything."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nas2edge.cli import main
from nas2edge.errors import EngineNotBuiltError
from nas2edge.export import from_supernet, registry, to_onnx
from nas2edge.export.exporter import Exporter
from nas2edge.export.registry import load_exporter
from nas2edge.export.simplify import simplify
from nas2edge.graph import fold_batch_norm
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile, write_subnet
from nas2edge.supernet.weights_file import supernet_info
from tests.export_run import write_run

TINY = load_space("tiny")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("supernet") / "run", images=2)


@pytest.fixture
def subnet(tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> SubnetFile:
    """A subnet.json in the working folder, as a search of the run writes it."""
    monkeypatch.chdir(tmp_path)
    info = supernet_info(str(run_folder))
    file = SubnetFile(space=TINY, subnet=TINY.smallest(), supernet={"source": info.source, "sha256": info.sha256})
    write_subnet(tmp_path / "subnet.json", file)
    return file


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments])


def test_onnx_ends_with_a_bundle_under_its_default_name(subnet, tmp_path):
    done = export("subnet.json", "--to", "onnx")

    assert done.exit_code == 0, done.output
    bundle = tmp_path / "bundles" / f"tiny-{subnet.subnet.id}-onnx"
    names = ["manifest.json", "model.onnx", "parity.npz", "report.json", "report.md"]
    assert sorted(path.name for path in bundle.iterdir()) == names
    lines = done.stdout.splitlines()
    ticked = [line.split()[1] for line in lines if line.startswith("  ok ")]
    assert ticked[:7] == ["freeze", "recalibrate", "fold", "onnx", "simplify", "input", "accuracy"]
    assert lines[-2].endswith(", ".join(names))


def test_json_is_alone_on_stdout(subnet):
    done = export("subnet.json", "--to", "onnx", "--json", "--out", "bundle")

    told = json.loads(done.stdout)
    assert (told["format"], told["version"], told["passed"], told["bundle"]) == ("nas2edge.export", 1, True, "bundle")
    assert [stage["verdict"] for stage in told["stages"]] == ["passed"] * len(told["stages"])
    assert "freeze" in done.stderr


def test_an_engine_not_built_ends_with_3_and_a_complete_onnx_bundle(subnet, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)

    done = export("subnet.json", "--to", "trt", "--out", "bundle")

    assert done.exit_code == 3
    assert "  --   trt" in done.stdout
    assert "error: no engine was built: no TensorRT works here" in done.stderr
    assert "pip install 'nas2edge[trt-rtx]'" in done.stderr
    manifest = json.loads(Path("bundle/manifest.json").read_text())
    assert [artefact["target"] for artefact in manifest["artefacts"]] == ["onnx"]
    assert Path("bundle/model.onnx").stat().st_size == manifest["files"]["model.onnx"]["bytes"]
    assert "trtexec --onnx=model.onnx" in Path("bundle/report.md").read_text()


def test_an_engine_that_was_not_run_is_not_called_passed(subnet, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="no engine without it: pip install 'nas2edge[trt-rtx]'")
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    done = export("subnet.json", "--to", "trt", "--out", "bundle", "--json")

    assert done.exit_code == 0
    assert json.loads(done.stdout)["stages"][-1]["verdict"] == "unchecked"
    manifest = json.loads(Path("bundle/manifest.json").read_text())
    assert set(manifest["files"]["model.engine"]) == {"bytes"}
    assert manifest["artefacts"][1]["run_here"] is False


def test_a_fault_ends_with_4_and_no_bundle(subnet, tmp_path, monkeypatch):
    def wrong(layers, state):
        return {name: value * 1.01 for name, value in fold_batch_norm(layers, state).items()}

    monkeypatch.setattr(from_supernet, "fold_batch_norm", wrong)

    done = export("subnet.json", "--to", "onnx", "--out", "bundle", "--json")

    assert done.exit_code == 4
    assert "error: the export failed at the stage 'fold'" in done.stderr
    told = json.loads(done.stdout)
    assert (told["passed"], told["bundle"]) == (False, None)
    assert told["stages"][-1]["verdict"] == "failed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.failed", "subnet.json"]


def test_weights_other_than_those_searched_are_refused(subnet, tmp_path, run_folder):
    stale = {"source": str(run_folder), "sha256": "0" * 64}
    write_subnet(tmp_path / "subnet.json", replace(subnet, supernet=stale))

    refused = export("subnet.json", "--to", "onnx")
    asked_for = export("subnet.json", "--to", "onnx", "--supernet", str(run_folder))

    assert refused.exit_code == 2
    assert "is not the supernet that the sub-network was searched with (sha256 " in refused.stderr
    assert asked_for.exit_code == 0


def test_a_sub_network_without_weights_is_refused(subnet, tmp_path):
    write_subnet(tmp_path / "subnet.json", replace(subnet, supernet=None))

    done = export("subnet.json", "--to", "onnx")

    assert done.exit_code == 2
    assert "subnet.json names no supernet, so it has no weights; give a run of its space by --supernet" in done.stderr


def test_another_sub_network_in_the_same_folder_needs_force(subnet, run_folder):
    first = export("subnet.json", "--to", "onnx", "--out", "bundle")
    refused = export("largest", "--supernet", str(run_folder), "--to", "onnx", "--out", "bundle")
    forced = export("largest", "--supernet", str(run_folder), "--to", "onnx", "--out", "bundle", "--force")

    assert (first.exit_code, refused.exit_code, forced.exit_code) == (0, 2, 0)
    assert "bundle holds another sub-network" in refused.stderr


def test_missing_torch_is_said_before_anything_is_done(subnet, tmp_path, monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else known(name))

    done = export("subnet.json", "--to", "onnx")

    assert done.exit_code == 2
    assert "exporting a sub-network needs torch" in done.stderr
    assert "pip install 'nas2edge[export]'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["subnet.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "onxx"), "unknown target 'onxx'; did you mean 'onnx'?"),
        (("--to", "onnx", "--batch", "0"), "batch '0' does not read"),
        (("--to", "onnx", "--batch", "1:2"), "expected a size such as 1, or MIN:OPT:MAX such as 1:4:16"),
        (("--to", "onnx", "--batch", "4:2:8"), "batch '4:2:8' is out of order"),
        (("--to", "onnx", "--opset", "12"), "opset 12 is out of range; expected 13 to"),
        (("--to", "onnx", "--recalibrate", "1"), "one image has no variance"),
    ],
)
def test_unusable_options_end_with_2(subnet, arguments, message):
    done = export("subnet.json", *arguments)

    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")


def test_text_in_brackets_survives_the_console(subnet, monkeypatch):
    """Stage summaries are text, not markup of the console."""

    def noted(model):
        return replace(simplify(model), note="see [export] and [/red]")

    monkeypatch.setattr(to_onnx, "simplify", noted)

    assert "see [export] and [/red]" in export("subnet.json", "--to", "onnx").stdout


class Picky(Exporter):
    """A target that takes float32 and nothing else."""

    name = "picky"

    def build(self, model, *, batch):
        if model.name != "model.onnx":
            raise EngineNotBuiltError("it takes float32 alone.\nThe ONNX file is complete")
        return replace(load_exporter("onnx").build(model, batch=batch), target=self.name)

    def run(self, artefact, images):
        return load_exporter("onnx").run(artefact, images)


@pytest.fixture
def picky(monkeypatch):
    targets = {"onnx": "nas2edge.exporters.onnx:OnnxExporter", "picky": f"{__name__}:Picky"}
    monkeypatch.setattr(registry, "_BUILT_IN", targets)
    monkeypatch.setattr("nas2edge.cli._export_options.target_names", lambda: tuple(targets))


def test_all_targets_makes_one_bundle_and_one_table(subnet, picky):
    """What does not take a precision is marked, and no failure."""
    done = export("subnet.json", "--all-targets", "--precision", "fp32,fp16", "--out", "bundle")

    assert done.exit_code == 0, done.output
    rows = [line.split()[:3] for line in done.stdout.splitlines() if line.split()[:1] in (["onnx"], ["picky"])]
    assert [row[:2] for row in rows if row[1] in ("fp32", "fp16")] == [
        ["onnx", "fp32"],
        ["picky", "fp32"],
        ["onnx", "fp16"],
        ["picky", "fp16"],
    ]
    assert ["picky", "fp16", "not"] in rows
    assert "picky fp16: it takes float32 alone." in done.stdout
    assert "ms here: median of" in done.stdout
    page = Path("bundle/report.md").read_text()
    assert "| picky | fp16 | not built | not run |" in page
    assert "The ONNX file is complete" not in page


def test_a_target_that_does_not_take_a_precision_ends_with_3(subnet, picky):
    done = export("subnet.json", "--to", "onnx,picky", "--precision", "fp16", "--out", "bundle", "--json")

    assert done.exit_code == 3
    assert "error: it takes float32 alone." in done.stderr
    assert Path("bundle/model.fp16.onnx").exists()
    assert json.loads(done.stdout)["engine_errors"].keys() == {"picky fp16"}

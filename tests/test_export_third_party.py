"""A target of another package, found by its entry point, is compared as our own are."""

from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.errors import EngineNotBuiltError, InputError, ParityError, RuntimeFailedError
from nas2edge.export import registry
from nas2edge.export.exporter import Exporter
from nas2edge.export.pipeline import ExportRequest, export
from nas2edge.export.registry import load_exporter
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import load_supernet
from tests.export_run import write_run

SPACE = load_space("tiny")


class Theirs(Exporter):
    """Runs the ONNX file as ours does, and changes what comes out."""

    name = "theirs"
    change = staticmethod(lambda logits: logits)

    def build(self, model, *, batch):
        made = model.with_name("theirs.onnx")
        made.write_bytes(model.read_bytes())
        return replace(load_exporter("onnx").build(made, batch=batch), target=self.name)

    def run(self, artefact, images):
        return Theirs.change(load_exporter("onnx").run(artefact, images))


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    return load_supernet(str(write_run(tmp_path_factory.mktemp("run"))))


@pytest.fixture
def exported(supernet, tmp_path, monkeypatch):
    entry = EntryPoint(name="theirs", value=f"{__name__}:Theirs", group=registry.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Theirs)
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([entry]).select(group=group))

    def run(change):
        monkeypatch.setattr(Theirs, "change", staticmethod(change))
        file = SubnetFile(space=SPACE, subnet=SPACE.smallest())
        return export(ExportRequest(file=file, supernet=supernet, targets=("theirs",), out=tmp_path / "bundle"))

    return run


def test_it_is_found_built_run_and_compared(exported):
    result = exported(lambda logits: logits)

    assert [(stage.name, stage.verdict) for stage in result.stages][-1] == ("theirs", "passed")
    assert (result.folder / "theirs.onnx").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits * np.float32(1.01), "a logit differs by"),
        (lambda logits: logits[:, ::-1], "the least cosine is"),
        (lambda logits: logits * np.float32("nan"), "are not finite"),
        (lambda logits: logits[:, :3], r"it returns shape \(40, 3\), expected \(40, 10\)"),
    ],
    ids=["one percent off", "other order", "not a number", "other shape"],
)
def test_what_it_computes_otherwise_fails_at_its_stage(exported, tmp_path, change, message):
    with pytest.raises(ParityError, match=f"failed at the stage 'theirs'.*{message}"):
        exported(change)

    assert [path.name for path in tmp_path.iterdir()] == ["bundle.failed"]


def fails(error):
    def run(logits):
        raise error

    return run


def test_a_device_that_does_not_answer_leaves_its_artefact_unchecked(exported):
    result = exported(fails(EngineNotBuiltError("cannot reach me@orin: Connection refused")))

    stage = result.stages[-1]
    assert (stage.name, stage.verdict) == ("theirs", "unchecked")
    assert stage.summary.endswith("cannot reach me@orin: Connection refused")
    assert (result.folder / "theirs.onnx").exists()


def test_an_artefact_that_its_runtime_refuses_fails_at_its_stage(exported, tmp_path):
    with pytest.raises(ParityError, match="failed at the stage 'theirs': it does not load the engine"):
        exported(fails(RuntimeFailedError("it does not load the engine")))

    assert [path.name for path in tmp_path.iterdir()] == ["bundle.failed"]


def test_a_later_failure_replaces_the_one_before(exported, tmp_path):
    for change in (lambda logits: logits * np.float32(1.5), lambda logits: logits * np.float32(2.0)):
        with pytest.raises(ParityError):
            exported(change)

    assert [path.name for path in tmp_path.iterdir()] == ["bundle.failed"]


@pytest.mark.parametrize("out", [".", "/"])
def test_a_folder_without_a_name_is_no_place_for_a_bundle(supernet, out):
    file = SubnetFile(space=SPACE, subnet=SPACE.smallest())
    with pytest.raises(InputError, match="has no name of its own"):
        export(ExportRequest(file=file, supernet=supernet, targets=("onnx",), out=Path(out)))


@pytest.mark.parametrize("batch", ["70000", "1:1:99999999999999999999"])
def test_a_batch_that_no_memory_holds_is_refused(batch):
    result = CliRunner().invoke(main, ["export", "smallest", "--to", "onnx", "--batch", batch])

    assert result.exit_code == 2
    assert "is too large; expected at most 65536" in result.stderr

"""Export targets by name: our own, other packages', and none."""

import sys
from typing import Any

import pytest

from nas2edge.errors import InputError, UnknownNameError
from nas2edge.export import registry
from nas2edge.export.exporter import Exporter
from nas2edge.export.registry import load_exporter, target_names


@pytest.mark.parametrize("name", target_names())
def test_every_target_loads_under_its_name(name):
    exporter = load_exporter(name)

    assert isinstance(exporter, Exporter)
    assert exporter.name == name


def test_an_unknown_target_names_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown target 'onx'; did you mean 'onnx'"):
        load_exporter("onx")


class _Entry:
    """An entry point of somebody else's package."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def load(self) -> Any:
        return lambda: self._made


def test_targets_of_other_packages_are_found_but_ours_win(monkeypatch):
    other = load_exporter("onnx")
    monkeypatch.setattr(registry, "_others", lambda: {"theirs": _Entry(other), "trt": _Entry(other)})

    assert target_names() == ("ncnn", "onnx", "openvino", "ort", "tflite", "theirs", "trt")
    assert load_exporter("theirs") is other
    assert load_exporter("trt").name == "trt"


def test_an_entry_point_that_is_no_exporter_is_named(monkeypatch):
    monkeypatch.setattr(registry, "_others", lambda: {"odd": _Entry("text")})

    with pytest.raises(TypeError, match="export target 'odd' is a str, not an Exporter"):
        load_exporter("odd")


THEIRS = """
from nas2edge.export.exporter import Artefact, Exporter


class Theirs(Exporter):
    name = "theirs"
    options = frozenset({"level"})

    def __init__(self, level="1"):
        self.level = level

    def build(self, model, *, batch):
        return Artefact(target=self.name, files=(model,), runtime="theirs")

    def run(self, artefact, images):
        return images[:, :, 0, 0]
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody else's as pip would install it, with a target that takes an option."""
    (tmp_path / "their_target-1.0.dist-info").mkdir()
    (tmp_path / "their_target-1.0.dist-info" / "METADATA").write_text("Name: their-target\nVersion: 1.0\n")
    (tmp_path / "their_target-1.0.dist-info" / "entry_points.txt").write_text(
        "[nas2edge.exporters]\ntheirs = their_target:Theirs\n"
    )
    (tmp_path / "their_target.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("their_target", None)


def test_an_installed_package_adds_its_target_without_being_imported(package):
    assert "theirs" in target_names()
    assert "their_target" not in sys.modules

    made: Any = load_exporter("theirs", {"level": "3"})
    assert made.level == "3"


def test_options_that_a_target_does_not_take_are_refused(package):
    with pytest.raises(InputError, match="the target 'theirs' takes no builder; leave it out"):
        load_exporter("theirs", {"builder": "rtx"})
    with pytest.raises(InputError, match="the target 'onnx' takes no timing-cache"):
        load_exporter("onnx", {"timing_cache": "a"})

"""Export targets by name: our own, other packages', and none."""

from typing import Any

import pytest

from nas2edge.errors import UnknownNameError
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

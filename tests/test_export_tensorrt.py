"""TensorRT engines: really built where TensorRT-RTX is installed, and a clear answer where nothing is."""

import importlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nas2edge.errors import EngineNotBuiltError
from nas2edge.export.registry import load_exporter
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.space import SearchSpace

RTX = "tensorrt_rtx"
FIXED = (1, 1, 1)


def needs_rtx() -> None:
    pytest.importorskip(RTX, reason="no engine without it: pip install 'nas2edge[trt-rtx]'")


def write_model(folder: Path, space: SearchSpace, batch: int | None = 1) -> Path:
    layers = plan(space, space.largest())
    model = network_model(layers, random_weights(layers, np.random.default_rng(0)), batch=batch)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def module() -> ModuleType:
    return importlib.import_module("nas2edge.exporters.tensorrt")


def test_an_engine_is_built_for_desktop_gpus_and_described(tmp_path, tiny_space, monkeypatch):
    needs_rtx()
    hide(monkeypatch, "tensorrt")
    model = write_model(tmp_path, tiny_space)

    artefact = load_exporter("trt").build(model, batch=FIXED)

    engine, sidecar = artefact.files
    described = json.loads(sidecar.read_text())["engine"]
    assert [engine.name, sidecar.name] == ["model.engine", "model.engine.json"]
    assert described["compute_capabilities"] == ["SM86", "SM89"]
    assert described["size_bytes"] == engine.stat().st_size > 10_000
    assert described["builder"] == RTX
    assert artefact.runtime.startswith("tensorrt_rtx ")


def test_without_a_gpu_it_says_that_it_was_not_run(tmp_path, tiny_space, monkeypatch, module):
    needs_rtx()
    hide(monkeypatch, "tensorrt")
    monkeypatch.setattr(module, "has_gpu", lambda: False)
    exporter = load_exporter("trt")

    artefact = exporter.build(write_model(tmp_path, tiny_space), batch=FIXED)

    assert artefact.why_not_run == "built for SM86 and SM89 GPUs, not for a Jetson; not run here: no GPU"
    with pytest.raises(EngineNotBuiltError, match="cannot be run here"):
        exporter.run(artefact, np.zeros((1, 3, 24, 24), np.float32))


def test_a_range_of_batch_sizes_builds(tmp_path, tiny_space, monkeypatch):
    needs_rtx()
    hide(monkeypatch, "tensorrt")

    artefact = load_exporter("trt").build(write_model(tmp_path, tiny_space, batch=None), batch=(1, 2, 4))

    assert artefact.notes["batch"] == [1, 2, 4]
    assert artefact.files[0].exists()


@pytest.mark.parametrize("opset", [13, 18])
def test_other_opsets_build(tmp_path, tiny_space, monkeypatch, opset):
    needs_rtx()
    hide(monkeypatch, "tensorrt")
    layers = plan(tiny_space, tiny_space.smallest())
    model = network_model(layers, random_weights(layers, np.random.default_rng(0)), opset=opset)
    onnx.save(model, tmp_path / "model.onnx")

    assert load_exporter("trt").build(tmp_path / "model.onnx", batch=FIXED).files[0].exists()


def test_an_operator_that_it_does_not_know_is_named(tmp_path, monkeypatch):
    needs_rtx()
    hide(monkeypatch, "tensorrt")
    node = helper.make_node("StringConcat", ["a", "a"], ["b"], name="joined")
    value = [helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in ("a", "b")]
    model = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:]))
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(EngineNotBuiltError, match=r"tensorrt_rtx .* does not read the ONNX file: node .*--opset"):
        load_exporter("trt").build(tmp_path / "model.onnx", batch=FIXED)


def test_ctrl_c_ends_a_build_and_is_not_lost(tmp_path, tiny_space, monkeypatch, module, caplog):
    """The signal comes while the builder is at work, on the first phase that it reports."""
    needs_rtx()
    hide(monkeypatch, "tensorrt")
    sent: list[logging.LogRecord] = []

    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not sent and record.getMessage().endswith(" steps"):
                sent.append(record)
                os.kill(os.getpid(), signal.SIGINT)

    handler = Interrupt()
    module.logger.addHandler(handler)
    caplog.set_level(logging.DEBUG, logger=module.logger.name)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)
    finally:
        module.logger.removeHandler(handler)

    assert sent
    assert not (tmp_path / "model.engine").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_installed_says_how_to_get_it(tmp_path, tiny_space, monkeypatch):
    hide(monkeypatch, "tensorrt", RTX)

    with pytest.raises(EngineNotBuiltError) as raised:
        load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)

    message = str(raised.value)
    assert raised.value.exit_code == 3
    assert "no TensorRT works here (tensorrt: " in message
    assert all(hint in message for hint in ("trtexec --onnx", "NVIDIA's package index", "nas2edge[trt-rtx]"))


def test_a_placeholder_package_is_recognised(tmp_path, tiny_space, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorrt.py").write_text("__version__ = '11.0'\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    hide(monkeypatch, RTX)

    with pytest.raises(EngineNotBuiltError, match="tensorrt: it imports but has no Builder; it is a placeholder"):
        load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)


def test_libraries_that_do_not_load_are_told(tmp_path, tiny_space, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open\\nmore')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    hide(monkeypatch, RTX)

    with pytest.raises(EngineNotBuiltError, match=r"\(tensorrt: libnvinfer\.so\.11: cannot open; tensorrt_rtx:"):
        load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)


class _FakeLogger:
    Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0, INFO=3)


def fake_tensorrt(*, makes_builder: bool, loads: bool = True) -> SimpleNamespace:
    """The vendor's module as far as the exporter uses it: version 8.5, which knows no strong types."""

    class Builder:
        def __init__(self, log: Any) -> None:
            if not makes_builder:
                log.log(1, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int) -> SimpleNamespace:
            assert flags == 1 << 0
            return SimpleNamespace(num_inputs=1)

        def create_builder_config(self) -> SimpleNamespace:
            return SimpleNamespace(set_memory_pool_limit=lambda pool, size: None)

        def build_serialized_network(self, network: Any, config: Any) -> bytes:
            assert not hasattr(config, "num_compute_capabilities")
            return b"engine"

    return SimpleNamespace(
        __name__="tensorrt",
        __version__="8.5.2",
        ILogger=_FakeLogger,
        Builder=Builder,
        OnnxParser=lambda network, log: SimpleNamespace(parse=lambda content: True),
        NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=lambda plan: "engine" if loads else None),
    )


def test_the_vendors_own_comes_first_and_its_engine_is_loaded(tmp_path, tiny_space, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(makes_builder=True))
    monkeypatch.setattr(module, "has_gpu", lambda: True)

    artefact = load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)

    assert (tmp_path / "model.engine").read_bytes() == b"engine"
    assert artefact.notes["precision"] == "float32"
    assert artefact.why_not_run == (
        "built for this machine's kind of GPU; it loads on this machine's GPU; its outputs were not compared"
    )


def test_an_engine_that_its_own_gpu_does_not_load_is_none(tmp_path, tiny_space, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(makes_builder=True, loads=False))
    monkeypatch.setattr(module, "has_gpu", lambda: True)

    with pytest.raises(EngineNotBuiltError, match="tensorrt 8.5.2 does not load the engine that it built"):
        load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)


def test_a_vendor_without_a_gpu_gives_way(tmp_path, tiny_space, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(makes_builder=False))
    hide(monkeypatch, RTX)

    with pytest.raises(EngineNotBuiltError, match=r"tensorrt 8\.5\.2: it makes no builder \(CUDA initialization"):
        load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)

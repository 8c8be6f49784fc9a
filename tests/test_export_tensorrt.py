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
from onnx import TensorProto, helper, numpy_helper

from nas2edge.cli._export_latency import measure_rows
from nas2edge.errors import EngineNotBuiltError, InputError, RuntimeFailedError
from nas2edge.export.registry import load_exporter
from nas2edge.export.rows import Row
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.runtimes import open_session
from nas2edge.space import SearchSpace
from tests.fake_tensorrt import HostMemory, fake_tensorrt

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


ORIN = SimpleNamespace(name="Orin", compute_capability="8.7")


@pytest.fixture
def module() -> ModuleType:
    return importlib.import_module("nas2edge.exporters._tensorrt_python")


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a GPU, whose memory is this machine's; returns the user's folder of caches."""
    exporter = importlib.import_module("nas2edge.exporters.tensorrt")
    builder = importlib.import_module("nas2edge.exporters._tensorrt_python")
    for place in (builder, exporter):
        monkeypatch.setattr(place, "find_gpu", lambda: ORIN)
    for place in (builder, importlib.import_module("nas2edge.runtimes.tensorrt")):
        monkeypatch.setattr(place, "find_memory", HostMemory)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nas2edge"


def test_an_engine_is_built_for_desktop_gpus_and_described(tmp_path, tiny_space, monkeypatch):
    needs_rtx()
    hide(monkeypatch, "tensorrt")
    model = write_model(tmp_path, tiny_space)

    artefact = load_exporter("trt").build(model, batch=FIXED)

    engine, sidecar = artefact.files
    described = json.loads(sidecar.read_text())["engine"]
    assert [engine.name, sidecar.name] == ["model.engine", "model.engine.json"]
    assert described["compute_capabilities"] == ["8.6", "8.9"]
    assert described["precision"] == "float32, strongly typed"
    assert described["size_bytes"] == engine.stat().st_size > 10_000
    assert described["builder"] == "rtx"
    assert artefact.runtime.startswith("tensorrt_rtx ")


def test_without_a_gpu_it_says_that_it_was_not_run(tmp_path, tiny_space, monkeypatch, module):
    needs_rtx()
    hide(monkeypatch, "tensorrt")
    monkeypatch.setattr(module, "find_gpu", lambda: None)
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
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:]), ir_version=9, opset_imports=opsets)
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
    assert all(hint in message for hint in ("--builder ssh://USER@HOST", "NVIDIA's package index", "nas2edge[trt-rtx]"))


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


@pytest.mark.parametrize(("size", "batch"), [(1, FIXED), (None, (1, 2, 4)), (2, (2, 2, 2))])
def test_the_vendors_own_comes_first_and_its_engine_is_run(size, batch, tmp_path, tiny_space, monkeypatch, on_a_gpu):
    """The GPU is a stand-in: it is shown that batches, shapes, types and addresses are handed over as they must."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt())
    model = write_model(tmp_path, tiny_space, batch=size)
    exporter, given = load_exporter("trt"), np.random.default_rng(0).standard_normal((7, 3, 24, 24)).astype(np.float32)

    artefact = exporter.build(model, batch=batch)

    assert (tmp_path / "model.engine").read_bytes() == model.read_bytes()
    assert artefact.notes["precision"] == "float32"
    assert (artefact.notes["gpu"], artefact.notes["compute_capabilities"]) == ("Orin", ["8.7"])
    assert not artefact.why_not_run
    expected = load_exporter("onnx").run(load_exporter("onnx").build(model, batch=batch), given)
    np.testing.assert_allclose(exporter.run(artefact, given), expected, atol=1e-5)


def test_an_engine_is_timed_with_its_input_on_the_gpu(tmp_path, tiny_space, monkeypatch, on_a_gpu):
    """Nothing is copied while the clock runs, and every run is waited for."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt())
    memory = HostMemory()
    monkeypatch.setattr("nas2edge.runtimes.tensorrt.find_memory", lambda: memory)
    write_model(tmp_path, tiny_space).rename(tmp_path / "net.engine")
    images = np.random.default_rng(0).standard_normal((1, 3, 24, 24)).astype(np.float32)

    with open_session(tmp_path / "net.engine", runtime="tensorrt") as session:
        assert (session.runtime, session.input.shape, session.output.shape) == (
            "tensorrt 8.5.2",
            (1, 3, 24, 24),
            (None, 3),
        )
        expected = session.run(images)
        assert memory.held == []
        timed = session.prepare(images)
        before = memory.waited
        seconds, worked = timed(3)
        assert memory.waited == before + 3
        assert seconds > 0.0 and worked > 0.0
        np.testing.assert_array_equal(memory.held[1], expected)
    assert memory.held == []


def test_an_engine_that_no_package_loads_is_told_what_each_said(tmp_path, monkeypatch, on_a_gpu):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(loads=False))
    hide(monkeypatch, RTX)
    (tmp_path / "net.plan").write_bytes(b"of another version")
    said = r"net.plan does not load \(tensorrt 8.5.2: it gave no reason; tensorrt_rtx: .*\); .* trtexec --loadEngine="
    with pytest.raises(RuntimeFailedError, match=said):
        open_session(tmp_path / "net.plan", runtime="tensorrt")


def test_bindings_that_make_no_runtime_are_told(tmp_path, monkeypatch, on_a_gpu):
    def none(log: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setitem(sys.modules, "tensorrt", trt := fake_tensorrt())
    monkeypatch.setattr(trt, "Runtime", none)
    hide(monkeypatch, RTX)
    (tmp_path / "net.engine").write_bytes(b"")
    with pytest.raises(RuntimeFailedError, match="factory function returned nullptr"):
        open_session(tmp_path / "net.engine", runtime="tensorrt")


def test_an_engine_that_python_cannot_run_here_is_left_out_of_the_table_of_latencies(tmp_path, tiny_space):
    """As of an engine that trtexec built and ran: the others are timed all the same."""
    onnx_file, engine = write_model(tmp_path, tiny_space), tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    rows = [Row(target=path.suffix, precision="fp32", files=(path.name,)) for path in (onnx_file, engine)]
    found = measure_rows(tmp_path, rows, batch=FIXED, image=(3, 24, 24))
    assert list(found) == [(".onnx", "fp32")]


def test_without_a_gpu_an_engine_is_timed_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("nas2edge.runtimes.tensorrt.find_memory", lambda: None)
    (tmp_path / "net.engine").write_bytes(b"")
    with pytest.raises(RuntimeFailedError, match="no CUDA GPU can be used here .* trtexec --loadEngine="):
        open_session(tmp_path / "net.engine", runtime="tensorrt")


def test_kernel_timings_are_kept_per_user_version_and_gpu(tmp_path, tiny_space, monkeypatch, on_a_gpu):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt())
    model = write_model(tmp_path, tiny_space)

    for _ in range(2):
        artefact = load_exporter("trt").build(model, batch=FIXED)
        assert artefact.notes["timing_cache"] == "tensorrt-8.5.2-sm8.7-Orin.timing"

    assert [file.read_bytes() for file in on_a_gpu.iterdir()] == [b"timings of 8.5.2"]


def test_timings_of_another_version_are_taken_anew(tmp_path, tiny_space, monkeypatch, on_a_gpu):
    monkeypatch.setitem(sys.modules, "tensorrt", trt := fake_tensorrt())
    (tmp_path / "mine.timing").write_bytes(b"timings of 8.6.1")

    options = {"timing_cache": str(tmp_path / "mine.timing")}
    load_exporter("trt", options).build(write_model(tmp_path, tiny_space), batch=FIXED)

    assert trt.seen.config.timings == b""
    assert (tmp_path / "mine.timing").read_bytes() == b"timings of 8.5.2"
    assert not on_a_gpu.exists()


@pytest.mark.parametrize(("kind", "flags"), [("float32", set()), ("float16", {"FP16"}), ("int8", {"INT8", "FP16"})])
def test_float32_is_no_tf32_and_lower_precision_is_allowed_where_types_are_weak(
    kind, flags, tmp_path, tiny_space, monkeypatch, on_a_gpu
):
    monkeypatch.setitem(sys.modules, "tensorrt", trt := fake_tensorrt(loads=True))
    monkeypatch.setattr(trt, "Runtime", lambda log: SimpleNamespace(deserialize_cuda_engine=lambda plan: "engine"))
    model = onnx.load(write_model(tmp_path, tiny_space))
    if kind == "float16":
        model.graph.initializer[0].data_type = TensorProto.FLOAT16
    if kind == "int8":
        scale, zero = np.array(0.1, np.float32), np.array(0, np.int8)
        model.graph.initializer.extend(
            numpy_helper.from_array(value, name) for value, name in ((scale, "s"), (zero, "z"))
        )
        model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"]))
    onnx.save(model, tmp_path / "model.onnx")

    load_exporter("trt").build(tmp_path / "model.onnx", batch=FIXED)

    assert trt.seen.config.flags == flags
    assert trt.seen.config.cleared == {"TF32"}


def test_an_engine_that_its_own_gpu_does_not_load_is_none(tmp_path, tiny_space, monkeypatch, on_a_gpu):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(loads=False))

    with pytest.raises(EngineNotBuiltError, match="tensorrt 8.5.2 does not load the engine that it built"):
        load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)


def test_a_vendor_without_a_gpu_gives_way(tmp_path, tiny_space, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(makes_builder=False))
    hide(monkeypatch, RTX)

    with pytest.raises(EngineNotBuiltError, match=r"tensorrt 8\.5\.2: it makes no builder \(CUDA initialization"):
        load_exporter("trt").build(write_model(tmp_path, tiny_space), batch=FIXED)


def test_only_the_builder_that_was_asked_for_is_tried(tmp_path, tiny_space, monkeypatch):
    hide(monkeypatch, "tensorrt")

    with pytest.raises(
        EngineNotBuiltError, match=r"works here \(tensorrt: import of tensorrt halted; None in sys.modules\)"
    ):
        load_exporter("trt", {"builder": "python"}).build(write_model(tmp_path, tiny_space), batch=FIXED)


def test_tensorrt_rtx_keeps_no_timings_and_says_so(tmp_path, tiny_space):
    needs_rtx()

    with pytest.raises(InputError, match="TensorRT-RTX keeps no kernel timings; leave --timing-cache out"):
        load_exporter("trt", {"builder": "rtx", "timing_cache": str(tmp_path / "a.timing")}).build(
            write_model(tmp_path, tiny_space), batch=FIXED
        )


def test_a_build_tells_how_far_it_is(tmp_path, tiny_space):
    needs_rtx()
    exporter, said = load_exporter("trt", {"builder": "rtx"}), []
    exporter.on_progress = said.append

    exporter.build(write_model(tmp_path, tiny_space), batch=FIXED)

    assert any(", 0 of " in text for text in said)
    assert any(text.rsplit(", ", 1)[-1] == "{0} of {0}".format(text.rsplit(" ", 1)[-1]) for text in said)

"""The runtimes that execute networks here: same logits, what they refuse, and how they say so."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from nas2edge.errors import InputError, RuntimeFailedError, UnknownNameError
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.runtimes import RUNTIMES, open_session, runtime_of
from nas2edge.spaces import load_space


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    space = load_space("tiny")
    layers = plan(space, space.decode(space.sample(1, rng))[0])
    return network_model(layers, random_weights(layers, rng))


@pytest.fixture(scope="module")
def images(model: onnx.ModelProto) -> np.ndarray:
    side = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return np.random.default_rng(1).standard_normal((1, 3, side, side), dtype=np.float32)


@pytest.fixture(scope="module")
def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """By onnx's own reference evaluator."""
    (found,) = ReferenceEvaluator(model).run(None, {"images": images})
    return np.asarray(found)


@pytest.fixture(scope="module")
def ncnn_files(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pnnx writes them; under another name, to see that the name does not matter."""
    folder = tmp_path_factory.mktemp("ncnn")
    onnx.save(model, folder / "net.onnx")
    pnnx = Path(sys.executable).with_name("pnnx")
    subprocess.run([pnnx, "net.onnx", "fp16=0"], cwd=folder, check=True, capture_output=True)
    (folder / "net.ncnn.param").rename(folder / "small.param")
    (folder / "net.ncnn.bin").rename(folder / "small.bin")
    return folder / "small.param"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_agree_with_the_onnx_reference(runtime, model, images, logits):
    with open_session(model.SerializeToString(), runtime=runtime) as session:
        assert session.input.shape == images.shape
        assert session.input.dtype == np.float32
        assert session.output.shape == (1, 10)
        np.testing.assert_allclose(session.run(images), logits, atol=1e-5)


def test_ncnn_agrees_with_the_onnx_reference(ncnn_files, images, logits):
    with open_session(ncnn_files, runtime="ncnn") as session:
        np.testing.assert_allclose(session.run(images), logits, atol=1e-4)
        found = session.run(np.concatenate([images, images]))
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
def test_programs_of_pytorch_run(suffix, tmp_path, images):
    import torch

    path, example = tmp_path / f"net{suffix}", (torch.from_numpy(images),)
    if suffix == ".pt2":
        torch.export.save(torch.export.export(torch.nn.Flatten(), example), path)
    else:
        torch.jit.trace(torch.nn.Flatten(), example).save(str(path))
    with open_session(path, runtime="torch") as session:
        np.testing.assert_array_equal(session.run(images), images.reshape(1, -1))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_timing_takes_longer_for_more_runs_and_gives_cpu_time(runtime, model, images):
    with open_session(model.SerializeToString(), runtime=runtime) as session:
        timed = session.prepare(images)
        timed(3)
        short = min(timed(2)[0] for _ in range(5))
        elapsed, worked = min(timed(20) for _ in range(5))

    assert elapsed > 2 * short
    assert 0 < worked < 1.5 * elapsed


def test_a_prepared_input_outlives_the_callers_array(model, images):
    with open_session(model.SerializeToString(), runtime="openvino") as session:
        timed = session.prepare(images.copy())
        assert timed(3)[0] > 0


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_damaged_file_is_said_to_be_so(runtime, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07 not a model")
    with pytest.raises(RuntimeFailedError, match="does not load the model: .+"):
        open_session(tmp_path / "net.onnx", runtime=runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_input_of_another_shape_is_refused(runtime, model, images):
    with open_session(model.SerializeToString(), runtime=runtime) as session, pytest.raises(RuntimeFailedError):
        session.run(images[:, :2])


def test_a_file_that_a_runtime_does_not_load_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"ncnn does not load .*net.onnx; it loads files that end in .param"):
        open_session(tmp_path / "net.onnx", runtime="ncnn")


def test_a_missing_file_and_a_missing_half(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*net.onnx"):
        open_session(tmp_path / "net.onnx", runtime="onnxruntime")
    (tmp_path / "net.param").write_text("7767517\n")
    with pytest.raises(InputError, match=r"there is no .*net.bin beside net.param"):
        open_session(tmp_path / "net.param", runtime="ncnn")


def test_an_unknown_runtime_is_refused():
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        open_session(b"", runtime="onnxrutime")


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("a.onnx", "onnxruntime"),
        ("a.ort", "onnxruntime"),
        ("a.xml", "openvino"),
        ("a.param", "ncnn"),
        ("a.pt", "torch"),
        ("a.tflite", "litert"),
    ],
)
def test_the_runtime_follows_from_the_suffix(name, runtime):
    assert runtime_of(Path(name)) == runtime
    assert runtime in RUNTIMES


def test_a_suffix_that_nothing_loads_is_refused():
    with pytest.raises(
        InputError, match=r"no runtime here loads a.mlmodel; expected a file that ends in .engine, .onnx"
    ):
        runtime_of(Path("a.mlmodel"))


def test_openvino_reports_itself_to_nobody() -> None:
    """Its import would start a process that sends an event over the network."""
    pytest.importorskip("openvino")
    code = (
        "import sys\n"
        "started = []\n"
        "names = ('os.fork', 'os.posix_spawn', 'subprocess.Popen', 'socket.connect', 'socket.getaddrinfo')\n"
        "sys.addaudithook(lambda name, args: started.append(name) if name in names else None)\n"
        "import nas2edge.runtimes.openvino, exporters.openvino\n"
        "import time; time.sleep(0.3)\n"
        "assert not started, started\n"
        "assert 'openvino' in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr

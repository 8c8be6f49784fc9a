"""Processes that time artefacts: what they answer, and what becomes of those that crash, hang or refuse."""

import numpy as np
import onnx
import pytest

from nas2edge.bench._worker import make_input, warm_up
from nas2edge.bench.artefact import find_artefact
from nas2edge.bench.measure import Options, Round, measure_round, profile_operators, stack_logs
from nas2edge.bench.process import Worker
from nas2edge.errors import InputError, RuntimeFailedError
from tests.bench_nets import chain

QUICK = Options(cycles=2, slice_s=0.001)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return chain(tmp_path_factory.mktemp("nets"), 2)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Returns a function that starts a worker made of some lines of Python."""

    def start(code: str, *, time_limit_s: float = 30.0) -> Worker:
        (tmp_path / "broken_worker.py").write_text(f"import os, sys, time\n{code}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return Worker("net.onnx", "onnxruntime", time_limit_s=time_limit_s, module="broken_worker")

    return start


def test_a_process_times_a_network(net):
    with Worker("net", "onnxruntime", time_limit_s=60.0) as worker:
        ready = worker.ask(path=str(net), threads=1, shape=None, seed=0)
        reply = worker.ask(do="slice", runs=5)

    assert ready["shape"] == [1, 16, 8, 8] and ready["dtype"] == "float32"
    assert ready["runtime"].startswith("ONNX Runtime ")
    assert ready["load_s"] > 0 and ready["first_s"] > 0 and ready["warm_up"]["runs"] >= 3
    assert ready["peak_bytes"] > ready["before_bytes"] > 1e6
    assert len(reply["seconds"]) == 5 and min(reply["seconds"]) > 0


def test_a_crash_is_said_by_its_signal_and_the_runtimes_words(broken):
    code = "print('kernel not supported', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)"
    with (
        broken(code) as worker,
        pytest.raises(RuntimeFailedError, match=r"net.onnx: .*crashed \(SIGSEGV\); it said: kernel not supported"),
    ):
        worker.ask(path="net.onnx")


def test_a_process_that_ends_is_said_by_its_exit_code(broken):
    with broken("sys.exit(3)") as worker, pytest.raises(RuntimeFailedError, match="exit code 3; it said nothing"):
        worker.ask(path="net.onnx")


def test_a_process_that_hangs_is_killed(broken):
    worker = broken("print('waiting for a device', file=sys.stderr, flush=True); time.sleep(600)", time_limit_s=1.0)
    with (
        worker,
        pytest.raises(
            RuntimeFailedError, match=r"no answer within 1 s, so its process was killed; it had said: waiting"
        ),
    ):
        worker.ask(path="net.onnx")
    assert worker.returncode is not None and worker.returncode < 0


def test_what_a_runtime_prints_does_not_mix_with_replies(net, tmp_path, monkeypatch):
    (tmp_path / "noisy_worker.py").write_text(
        "import os\nfrom nas2edge.bench import _worker\n"
        "serve = _worker._serve\n"
        "def noisy(*args):\n    os.write(1, b'chatter of a runtime\\n')\n    print('more')\n    serve(*args)\n"
        "_worker._serve = noisy\n_worker.main()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker("net", "onnxruntime", time_limit_s=60.0, module="noisy_worker") as worker:
        assert worker.ask(path=str(net), threads=1, shape=None, seed=0)["shape"] == [1, 16, 8, 8]


def test_a_network_that_a_runtime_refuses_is_said_in_its_words(tmp_path):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"\x08\x07 not a model")
    with pytest.raises(RuntimeFailedError, match=r"damaged.onnx: onnxruntime .* does not load the model: .+"):
        measure_round([find_artefact(str(path))], QUICK)


def test_a_round_has_samples_of_every_artefact(net, tmp_path):
    bigger = chain(tmp_path, 24)
    artefacts = [find_artefact(str(path)) for path in (net, bigger, net)]
    found = measure_round(artefacts, QUICK)

    assert found.logs.shape == (3, 2)
    assert all(len(runs) >= 4 for runs in found.runs)
    assert np.median(found.runs[1]) > 3 * np.median(found.runs[0])
    assert 0.0 <= found.disturbed <= 1.0 and found.seconds > 0


def test_every_round_starts_another_process_first(net, tmp_path, monkeypatch):
    """The samples stand in the order of the artefacts all the same."""
    started = []

    def noted(name, runtime, **options):
        started.append(name)
        return Worker(name, runtime, **options)

    monkeypatch.setattr("nas2edge.bench.measure.Worker", noted)
    bigger = chain(tmp_path, 24)
    pair = [find_artefact(str(path)) for path in (net, bigger)]
    for number in (0, 1, 2):
        found = measure_round(pair, QUICK, number=number)
        assert np.median(found.runs[1]) > 3 * np.median(found.runs[0])
    small, large = (artefact.name for artefact in pair)
    assert started == [small, large, large, small, small, large]


def test_slices_are_as_long_for_all_and_slow_networks_have_fewer_cycles(net, tmp_path):
    """Of the larger one a slice of 1 ms holds fewer runs; a round of no time still has four cycles."""
    pair = [find_artefact(str(path)) for path in (net, chain(tmp_path, 60))]
    found = measure_round(pair, Options(cycles=12, slice_s=0.001, round_s=0.0))

    assert found.logs.shape == (2, 4)
    assert len(found.runs[0]) > 2 * len(found.runs[1])


def test_rounds_of_unequal_length_are_cut_to_the_shortest():
    rounds = [Round(logs=np.full((3, cycles), float(cycles))) for cycles in (5, 4)]

    assert stack_logs(rounds).shape == (3, 2, 4)
    assert stack_logs(rounds)[:, 0].max() == 5.0


def test_artefacts_with_different_inputs_are_refused(net, tmp_path):
    other = chain(tmp_path, 2, side=16)
    with pytest.raises(
        InputError, match=r"chain2-16.onnx takes float32 1x16x16x16, but .*chain2-8.onnx float32 1x16x8x8"
    ):
        measure_round([find_artefact(str(net)), find_artefact(str(other))], QUICK)


def test_a_shape_that_does_not_fit_is_refused(net):
    with pytest.raises(RuntimeFailedError, match="its input has shape 1x16x8x8, not 1x3x8x8"):
        measure_round([find_artefact(str(net), shape=(1, 3, 8, 8))], QUICK)


def test_an_open_axis_takes_what_is_asked_for(tmp_path, net):
    model = onnx.load(net)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "open.onnx")

    for shape, expected in ((None, (1, 16, 8, 8)), ((4, 16, 8, 8), (4, 16, 8, 8))):
        found = measure_round([find_artefact(str(tmp_path / "open.onnx"), shape=shape)], QUICK)
        assert found.starts[0].shape == expected


def test_warming_up_ends_when_the_times_are_stable_and_is_bounded():
    times = iter([5.0, 4.0, 3.0, *[1.0] * 1000])
    stable = warm_up(lambda n: (next(times), 0.0), limit_s=60.0)
    rng = np.random.default_rng(0)
    restless = warm_up(lambda n: (float(rng.uniform(1.0, 100.0)) * 1.5 ** rng.integers(9), 0.0), limit_s=0.0)

    assert stable["stable"] and 20 <= stable["runs"] < 40
    assert not restless["stable"] and restless["runs"] == 3


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_inputs_are_drawn_in_the_type_that_is_asked_for(dtype):
    found = make_input((2, 3), np.dtype(dtype), seed=1)

    assert found.shape == (2, 3) and found.dtype == dtype
    assert len(np.unique(found)) > 1
    np.testing.assert_array_equal(found, make_input((2, 3), np.dtype(dtype), seed=1))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_profiles_name_the_operators_by_their_blocks(runtime, net):
    operators = profile_operators(find_artefact(str(net), runtime=runtime), QUICK, runs=10)

    assert [entry for entry in operators if entry.name.startswith("chain.1.depthwise")]
    assert sum(entry.ms for entry in operators) > 0


@pytest.mark.slow
def test_a_runtime_without_a_profiler_says_so(tmp_path):
    import torch

    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(torch.nn.Flatten(), (torch.zeros(1, 3, 4, 4),)), path)
    with pytest.raises(RuntimeFailedError, match="torch has no profile of operators that is read here"):
        profile_operators(find_artefact(str(path), shape=(1, 3, 4, 4)), QUICK)
    with pytest.raises(RuntimeFailedError, match="does not say the shape of its input; give it"):
        measure_round([find_artefact(str(path))], QUICK)

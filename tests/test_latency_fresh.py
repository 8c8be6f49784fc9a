"""Items that are measured each in a process of its own: what comes back, and what is said when the process fails."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest

from nas2edge.errors import InputError, RuntimeFailedError
from nas2edge.latency.fresh import FreshProcesses
from nas2edge.latency.guard import Guard, Timed, make_look
from nas2edge.latency.protocol import Isolating, Item, Options, Samples, measure
from nas2edge.latency.target import Target, make_prepare

QUICK = Options(time_per_row_s=0.02, warmup_s=0.002, repairs=0, retries=0)


def _steady(item: Item, rng: np.random.Generator) -> Timed:
    """Takes a millisecond a run, and leaves its process's number in the file that the item is called after."""
    with Path(item.id).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {rng.integers(2**32)}\n")
    return lambda n: (n * 1e-3, n * 1e-3)


def _refuse(item: Item, rng: np.random.Generator) -> Timed:
    raise InputError(f"{item.id} has no such thing")


def _die(item: Item, rng: np.random.Generator) -> Timed:
    os._exit(7)


def _die_later(item: Item, rng: np.random.Generator) -> Timed:
    ends = perf_counter() + 0.5
    return lambda n: (n * 1e-3, n * 1e-3) if perf_counter() < ends else os._exit(7)


def _steady_alone(item: Item, rng: np.random.Generator) -> Timed:
    return lambda n: (n * 1e-3, n * 1e-3)


def _prepare(build) -> FreshProcesses:
    return FreshProcesses(build, rng=np.random.default_rng(0), preload=[])


def test_every_visit_has_a_process_and_weights_of_its_own(tmp_path: Path) -> None:
    item = Item(id=str(tmp_path / "pids"), layers=())
    prepare = _prepare(_steady)

    samples = []
    for _ in range(2):
        with prepare.sampling(item, options=QUICK) as sample:
            samples += [sample(0.01), sample(0.002)]

    assert samples == [Samples(1, (1e-3,) * 10, (1e-3,) * 10), Samples(1, (1e-3,) * 2, (1e-3,) * 2)] * 2
    lines = [line.split() for line in Path(item.id).read_text().splitlines()]
    assert len({pid for pid, _ in lines} | {str(os.getpid())}) == 3
    assert len({weights for _, weights in lines}) == 2


def test_the_protocol_measures_there(tmp_path: Path) -> None:
    item, prepare = Item(id=str(tmp_path / "pids"), layers=()), _prepare(_steady)
    assert isinstance(prepare, Isolating)

    found = measure(
        [item], prepare=prepare, guard=Guard(make_look(lambda n: (n * 1e-4, n * 1e-4))), options=QUICK,
        rng=np.random.default_rng(0), visits={}, save=lambda _: None, progress=lambda *_: None,
    )  # fmt: skip

    assert found[item.id].p50 == pytest.approx(1.0)
    assert found[item.id].n == 20
    assert len(Path(item.id).read_text().splitlines()) == QUICK.sessions


def test_called_it_builds_in_this_process(tmp_path: Path) -> None:
    item = Item(id=str(tmp_path / "pids"), layers=())

    timed = _prepare(_steady)(item)

    assert timed(3) == pytest.approx((3e-3, 3e-3))
    assert Path(item.id).read_text().split()[0] == str(os.getpid())


def test_what_cannot_be_built_says_why() -> None:
    with (
        pytest.raises(RuntimeFailedError, match="a block has no such thing"),
        _prepare(_refuse).sampling(Item(id="a block", layers=()), options=QUICK),
    ):
        raise AssertionError("nothing to sample")


def test_a_process_that_dies_is_named() -> None:
    with (
        pytest.raises(RuntimeFailedError, match="that measured a block ended with exit code 7 before it was done"),
        _prepare(_die).sampling(Item(id="a block", layers=()), options=QUICK),
    ):
        raise AssertionError("nothing to sample")


def test_a_process_that_dies_amid_the_sampling_is_named() -> None:
    with (
        pytest.raises(RuntimeFailedError, match="that measured a block ended with exit code 7 before it was done"),
        _prepare(_die_later).sampling(Item(id="a block", layers=()), options=QUICK) as sample,
    ):
        sample(0.01)
        sleep(0.6)
        sample(0.01)


def test_what_goes_wrong_in_between_leaves_no_process() -> None:
    with pytest.raises(ZeroDivisionError), _prepare(_steady_alone).sampling(Item(id="a", layers=()), options=QUICK):
        raise ZeroDivisionError

    assert not multiprocessing.active_children()


def _program(tmp_path: Path, last: str) -> subprocess.Popen[str]:
    """Starts a program that keeps a reference, tells its process's number, and ends as the last line says."""
    text = f"""
from tests.test_latency_fresh import _prepare, _steady, Item
if __name__ == "__main__":
    look = _prepare(_steady).reference(Item(id={str(tmp_path / "pids")!r}, layers=()))
    print(look()[0], flush=True)
    {last}
"""
    script = tmp_path / "program.py"
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)


def _is_there(tmp_path: Path) -> bool:
    pid = int((tmp_path / "pids").read_text().split()[0])
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        sleep(0.1)
    return True


def test_a_program_ends_though_its_reference_stands_still(tmp_path: Path) -> None:
    program = _program(tmp_path, "import gc; gc.disable(); keep = [look]; keep.append(keep)")

    shown, _ = program.communicate(timeout=60)

    assert (program.returncode, shown) == (0, "1.0\n")
    assert not _is_there(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_reference_ends_with_a_program_that_is_killed(tmp_path: Path) -> None:
    program = _program(tmp_path, "import time; time.sleep(60)")
    assert program.stdout is not None and program.stdout.readline() == "1.0\n"

    program.kill()
    program.communicate()

    assert not _is_there(tmp_path)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_executes_there(runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    prepare = make_prepare(Target(runtime=runtime), rng=np.random.default_rng(0))

    with prepare.sampling(Item(id="a border", layers=(), border=(16, 24)), options=QUICK) as sample:
        samples = sample(0.005)

    assert samples.runs >= 1
    assert sum(samples.seconds) * samples.runs >= 0.005
    assert all(seconds > 0 for seconds in samples.seconds)

"""Several processes that evaluate: accuracies of one, in turn, with errors that say what to do."""

import json
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.errors import DataError, InputError
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.evaluate import make_evaluator
from nas2edge.supernet.pool import EvaluatorPool
from nas2edge.train.processes import Process

torch = pytest.importorskip("torch")
BUILTIN = "builtin:tiny"


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_two_processes_find_what_one_finds(one_thread: None) -> None:
    loaded = load_supernet(BUILTIN)
    space = loaded.info.space
    subnets = [space.smallest(), *space.decode(space.sample(2, np.random.default_rng(0)))]
    alone = make_evaluator(loaded)

    pool = EvaluatorPool(BUILTIN, processes=2, threads=1)

    assert pool.tested == alone.tested
    assert pool(subnets) == alone(subnets)


def test_what_a_process_refuses_is_refused_here(tmp_path) -> None:
    (tmp_path / "validation").mkdir()

    with pytest.raises(DataError, match="no images in .*validation"):
        EvaluatorPool(BUILTIN, processes=2, data=tmp_path)


def test_a_process_that_is_killed_is_told_of() -> None:
    pool = EvaluatorPool(BUILTIN, processes=2, threads=1)
    space = load_supernet(BUILTIN).info.space
    accuracies = pool.each(space.decode(space.sample(20, np.random.default_rng(0))))
    next(accuracies)

    os.kill(next(iter(pool._executor._processes)), signal.SIGKILL)

    with pytest.raises(InputError, match="one of 2 processes .* was killed.*use fewer --processes"):
        list(accuracies)


def test_the_command_shares_out_the_sub_networks() -> None:
    def accuracies(*args: str) -> list[float]:
        result = CliRunner().invoke(main, ["evaluate", "--threads", "1", "--json", *args], catch_exceptions=False)
        found = json.loads(result.stdout)
        assert found["processes"] == (2 if args else 1)
        return [row["accuracy"] for row in found["subnets"]]

    assert accuracies("--processes", "2") == accuracies()


def test_processes_and_torchrun_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas2edge.train.processes.join", lambda: Process(rank=0, world=3))

    result = CliRunner().invoke(main, ["evaluate", "--processes", "2"])

    assert result.exit_code == 2
    assert "--processes 2 under torchrun, which started 3; give one of the two" in result.stderr

"""Accuracies by several processes: each holds the supernet and the images, and takes the next sub-network that is due.

>>> pool = EvaluatorPool("runs/tiny", processes=4)  # doctest: +SKIP
>>> accuracies = pool([space.smallest(), space.largest()])  # doctest: +SKIP

Sub-networks depend on nothing that others leave behind, so accuracies are those of one process with as many threads.
Processes are spawned: a script that does this needs `if __name__ == "__main__":`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import final

import torch

from nas2edge.cores import count_cores
from nas2edge.errors import InputError
from nas2edge.space import SubnetConfig
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.evaluate import SupernetEvaluator, make_evaluator


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    supernet: str
    data: Path | None
    split: str


@final
class EvaluatorPool:
    """Measures the top-1 accuracy of sub-networks as `SupernetEvaluator` does, several at once.

    Args:
        supernet: "builtin:NAME", a run's folder, or a weights file.
        processes: How many.
        threads: CPU threads of each; by default the cores that there are, shared out.
        data: Folder or zip file with the split, as in `make_evaluator`.
        split: The split to measure the accuracy on.

    Attributes:
        tested: Number of images that accuracies are measured on.

    Raises:
        CheckpointError: The weights cannot be read.
        DataError: There are no images, they do not decode, or their classes are not the supernet's.
        InputError: A process died, most likely for want of memory.
    """

    def __init__(
        self,
        supernet: str,
        *,
        processes: int,
        threads: int | None = None,
        data: Path | None = None,
        split: str = "validation",
    ) -> None:
        self._source = _Source(supernet=supernet, data=data, split=split)
        self._processes = processes
        self._executor = ProcessPoolExecutor(
            processes,
            mp_context=get_context("spawn"),
            initializer=_begin,
            initargs=(threads or max(1, count_cores() // processes),),
        )
        try:
            self.tested = self._executor.submit(_tested, self._source).result()
        except BrokenProcessPool as err:
            raise self._died() from err

    def __call__(self, subnets: Sequence[SubnetConfig]) -> list[float]:
        """Returns the accuracy of each sub-network, in percent."""
        return list(self.each(subnets))

    def each(self, subnets: Sequence[SubnetConfig]) -> Iterator[float]:
        """Yields the accuracies in turn, each as soon as it and those before it are known.

        Raises:
            InputError: A process died, most likely for want of memory.
        """
        try:
            yield from self._executor.map(partial(_accuracy, self._source), subnets)
        except BrokenProcessPool as err:
            raise self._died() from err

    def _died(self) -> InputError:
        return InputError(
            f"one of {self._processes} processes that evaluate sub-networks was killed, most likely for want of "
            "memory: each holds the supernet and all images; use fewer --processes"
        )


def _begin(threads: int) -> None:
    """Prepares a process: the one that started it alone heeds Ctrl-C, and none outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@cache
def _evaluator(source: _Source) -> SupernetEvaluator:
    return make_evaluator(load_supernet(source.supernet), data=source.data, split=source.split)


def _tested(source: _Source) -> int:
    return _evaluator(source).tested


def _accuracy(source: _Source, subnet: SubnetConfig) -> float:
    return _evaluator(source)([subnet])[0]

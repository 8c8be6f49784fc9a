"""Measuring each item in a process of its own, as it will be deployed: nothing that ran before has a part in it.

How fast a network is depends on what its process did before: in one that had run large networks, those of the tiny
space were 2.7 % slower through OpenVINO than in a fresh one (docs/latency.md). A table from such a process is off
for every network that users start.

Processes are forked from a server that has imported the runtime and executed nothing, so that one costs milliseconds.
A process stands still while it is not its turn: the threads of ONNX Runtime go on spinning for some 40 ms after a run,
on the core that another process is measured on by then.

>>> prepare = FreshProcesses(build, rng=rng, preload=["nas2edge.runtimes.ort"])  # doctest: +SKIP
>>> with prepare.sampling(item, options=Options()) as sample:  # doctest: +SKIP
...     sample(0.1)
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, final

import numpy as np

from nas2edge.cores import clean_processes
from nas2edge.errors import Nas2EdgeError, RuntimeFailedError
from nas2edge.latency.guard import Look, Timed, make_look
from nas2edge.latency.protocol import Item, Options, Sample, Samples, make_sample

Build = Callable[[Item, np.random.Generator], Timed]
"""Builds an item for execution, with random weights; it must pickle."""


_PR_SET_PDEATHSIG = 1  # of Linux


@final
class FreshProcesses:
    """Builds items: in this process when called, in one of its own to be sampled.

    Args:
        build: Builds an item.
        rng: Draws weights and images.
        preload: Modules to import before a process is forked, where processes can be.
    """

    def __init__(self, build: Build, *, rng: np.random.Generator, preload: Sequence[str]) -> None:
        self._build, self._rng = build, rng
        self._context = clean_processes(["__main__", __name__, *preload])

    def __call__(self, item: Item) -> Timed:
        """Builds an item in this process."""
        return self._build(item, self._rng)

    def reference(self, item: Item) -> Look:
        """Builds an item in a process of its own, which ends when the function that is returned is dropped.

        Raises:
            RuntimeFailedError: The process could not build or execute it, or died; now, or at a later call.
        """
        worker = self._start(item, None)

        def look() -> tuple[float, float]:
            found: tuple[float, float] = worker.ask(0.0)
            return found

        return look

    @contextmanager
    def sampling(self, item: Item, *, options: Options) -> Iterator[Sample]:
        """Builds an item in a process of its own, which ends with the context, and yields what times it there.

        Raises:
            RuntimeFailedError: The process could not build or execute it, or died.
        """
        worker = self._start(item, options)

        def sample(seconds: float) -> Samples:
            found: Samples = worker.ask(seconds)
            return found

        try:
            yield sample
        finally:
            worker.end()

    def _start(self, item: Item, options: Options | None) -> _Worker:
        return _Worker(self._context, (self._build, item, int(self._rng.integers(2**63)), options))


@final
class _Worker:
    """A process that has built an item, and executes it when it is asked to."""

    def __init__(self, context: BaseContext, work: tuple[Build, Item, int, Options | None]) -> None:
        self._pipe, theirs = context.Pipe()
        self._name = work[1].id
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, *work), daemon=True
        )
        self._process.start()
        # Also when this program ends, before it asks its processes to: one that stands still would not answer.
        self._finalize = Finalize(self, _end, args=(self._pipe, self._process), exitpriority=10)
        theirs.close()
        try:
            self._answer()  # it is built and warm
        except RuntimeFailedError:
            self.end()
            raise

    def ask(self, seconds: float) -> Any:
        """Returns what the process answers to a number of seconds."""
        self._signal("SIGCONT")
        with suppress(BrokenPipeError):  # it is gone; the answer says so
            self._pipe.send(seconds)
        return self._answer()

    def end(self) -> None:
        """Ends the process."""
        self._finalize()

    def _answer(self) -> Any:
        try:
            found = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise RuntimeFailedError(
                f"the process that measured {self._name} ended with exit code {self._process.exitcode} before it was "
                "done"
            ) from None
        if isinstance(found, str):
            raise RuntimeFailedError(found)
        self._signal("SIGSTOP")
        return found

    def _signal(self, name: str) -> None:
        number = getattr(signal, name, None)  # Windows has no such signals
        if number is not None and self._process.is_alive():
            os.kill(self._process.pid, number)


def _end(pipe: Connection, process: BaseProcess) -> None:
    pipe.close()
    process.kill()
    process.join()


def _end_with_program() -> None:
    """Has the system end this process when the program that measures does, even if this one stands still.

    Its parent is the server it was forked from, which ends when nobody holds the pipe any more that it watches.
    """
    if sys.platform == "linux":
        from multiprocessing import forkserver

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        held = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
        if held is not None:
            os.close(held)


def _serve(pipe: Connection, build: Build, item: Item, seed: int, options: Options | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked decides
    _end_with_program()
    try:
        timed = build(item, np.random.default_rng(seed))
        execute: Callable[[float], Any]
        if options is None:
            look = make_look(timed)
            execute = lambda seconds: look()  # noqa: E731
        else:
            execute = make_sample(timed, options=options)
        pipe.send(None)
        while True:
            pipe.send(execute(pipe.recv()))
    except Nas2EdgeError as err:
        pipe.send(str(err))
    except EOFError:
        return  # whoever asked is gone

"""Measuring each item in a process of its own, as it will be deployed: nothing that ran before has a part in it.

How fast a network is depends on what its process did before: in one that had run large networks, those of the tiny
space were 2.7 % slower through OpenVINO than in a fresh one (docs/latency.md). A table from such a process is off
for every network that users start.

Processes are forked from a server that has imported the runtime and executed nothing, so that one costs milliseconds.

>>> prepare = FreshProcesses(build, rng=rng, preload=["nas2edge.runtimes.ort"])  # doctest: +SKIP
>>> prepare.sample(item, seconds=0.1, options=Options())  # doctest: +SKIP
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import final

import numpy as np

from nas2edge.errors import Nas2EdgeError, RuntimeFailedError
from nas2edge.latency.protocol import Item, Options, Samples, Timed, take_samples

Build = Callable[[Item, np.random.Generator], Timed]
"""Builds an item for execution, with random weights; it must pickle."""


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
        self._context = _context(preload)

    def __call__(self, item: Item) -> Timed:
        """Builds an item in this process."""
        return self._build(item, self._rng)

    def sample(self, item: Item, *, seconds: float, options: Options) -> Samples:
        """Builds an item in a process of its own, which ends with it, and times it there.

        Raises:
            RuntimeFailedError: The process could not build or execute it, or died.
        """
        receiver, sender = self._context.Pipe(duplex=False)
        seed = int(self._rng.integers(2**63))
        process = self._context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(sender, self._build, item, seed, seconds, options), daemon=True
        )
        process.start()
        sender.close()
        patience = 0.0
        try:
            answer = receiver.recv()
            patience = _PATIENCE_S
        except EOFError:
            process.join()
            raise RuntimeFailedError(
                f"the process that measured {item.id} ended with exit code {process.exitcode} before it was done"
            ) from None
        finally:
            receiver.close()
            process.join(timeout=patience)
            process.kill()
            process.join()
        if isinstance(answer, str):
            raise RuntimeFailedError(answer)
        found: Samples = answer
        return found


_PATIENCE_S = 5.0  # to end by itself, once it has answered


def _context(preload: Sequence[str]) -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, *preload])
    return context


def _serve(sender: Connection, build: Build, item: Item, seed: int, seconds: float, options: Options) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked decides
    try:
        sender.send(take_samples(build(item, np.random.default_rng(seed)), seconds=seconds, options=options))
    except Nas2EdgeError as err:
        sender.send(str(err))

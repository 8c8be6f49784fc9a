"""A process that times one artefact. It reads requests and writes replies, one JSON object a line, until stdin ends.

Its argument is the runtime. The first request is {"path", "threads", "shape", "seed"}; then {"do": "slice", "lead": m,
"runs": n} times n runs one by one, after m that are not timed, and {"do": "operators", "runs": n} says where time goes.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nas2edge.errors import InputError, Nas2EdgeError
from nas2edge.runtimes.operators import operator_times
from nas2edge.runtimes.registry import load_runtime, open_session
from nas2edge.runtimes.session import Session, Timed

WARMUP_LIMIT_S = 1.0
WARMUP_WINDOW = 10  # runs whose median is compared with that of the same number before them
WARMUP_TOLERANCE = 0.02


def main() -> None:
    """Serves one artefact."""
    runtime = sys.argv[1]
    replies = _take_stdout()
    try:
        load_runtime(runtime)  # before any clock runs, so that load time and memory are those of the network
        first = sys.stdin.readline()
        if first:
            _serve(runtime, json.loads(first), replies)
    except Nas2EdgeError as err:
        _write(replies, {"error": str(err)})


def warm_up(timed: Timed, *, limit_s: float = WARMUP_LIMIT_S) -> dict[str, Any]:
    """Runs until the median of the last runs is that of the runs before them, but at least three runs, at most a while.

    Returns:
        {"runs", "seconds", "stable"}.
    """
    times: list[float] = []
    start = perf_counter()
    stable = False
    while not stable and (len(times) < 3 or perf_counter() - start < limit_s):
        times.append(timed(1)[0])
        if len(times) >= 2 * WARMUP_WINDOW:
            before, last = np.median(np.reshape(times[-2 * WARMUP_WINDOW :], (2, -1)), axis=1).tolist()
            stable = abs(last - before) <= WARMUP_TOLERANCE * before
    return {"runs": len(times), "seconds": perf_counter() - start, "stable": stable}


def make_input(shape: tuple[int, ...], dtype: np.dtype[Any], *, seed: int) -> npt.NDArray[Any]:
    """Draws an input: normal values of a floating type, else whole numbers from 0 to 127."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 128, shape).astype(dtype)


def _serve(runtime: str, spec: Mapping[str, Any], replies: IO[str]) -> None:
    path, threads = Path(spec["path"]), spec["threads"]
    before = _memory("VmRSS")
    start = perf_counter()
    with open_session(path, runtime=runtime, threads=threads) as session:
        load_s = perf_counter() - start
        images = make_input(_shape(session, spec["shape"]), session.input.dtype, seed=spec["seed"])
        start = perf_counter()
        session.run(images)
        first_s = perf_counter() - start
        timed = session.prepare(images)
        warm = warm_up(timed)
        gc.collect()
        gc.disable()
        _write(replies, {
            "runtime": session.runtime,
            "shape": list(images.shape),
            "dtype": str(images.dtype),
            "load_s": load_s,
            "first_s": first_s,
            "warm_up": warm,
            "run_s": min(timed(1)[0] for _ in range(3)),
            "peak_bytes": _memory("VmHWM"),
            "before_bytes": before,
        })  # fmt: skip
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "slice":
                _write(replies, _slice(timed, request.get("lead", 1), request["runs"]))
            else:
                found = operator_times(path, runtime=runtime, threads=threads, images=images, runs=request["runs"])
                _write(replies, {"operators": [asdict(entry) for entry in found]})


def _slice(timed: Timed, lead: int, runs: int) -> dict[str, Any]:
    if lead:
        timed(lead)
    switched = _switches()
    return {"seconds": [timed(1)[0] for _ in range(runs)], "disturbed": _switches() > switched}


def _shape(session: Session, asked: Sequence[int] | None) -> tuple[int, ...]:
    if asked is None and not session.input.shape:
        raise InputError("it does not say the shape of its input; give it, for example as --input-shape 1x3x224x224")
    known = session.input.shape
    if asked is None:
        return tuple(size or 1 for size in known)
    fits = len(asked) == len(known) and all(size in (None, want) for size, want in zip(known, asked, strict=True))
    if known and not fits:
        raise InputError(f"its input has shape {_format(known)}, not {_format(asked)}")
    return tuple(asked)


def _format(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _take_stdout() -> IO[str]:
    """Keeps stdout for replies; what a runtime prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _write(replies: IO[str], reply: Mapping[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _memory(field: str) -> int | None:
    """A field of /proc/self/status in bytes; None where the system has no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _switches() -> int:
    """How often another process was given this one's core."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # OpenVINO's threads may wait for each other for ever while the interpreter is taken down

"""Where the time of a network goes: operator by operator, as the runtime's own profiler has it.

Profiling itself costs time, on every operator, so these figures are for shares and for what is slowest; latencies are
taken without it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas2edge.errors import InputError
from nas2edge.runtimes.session import Array

PROFILED = ("onnxruntime", "openvino")
"""Runtimes that have a profiler that is read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """One operator of a network as it was run, that is after the runtime has fused and replaced what it could.

    Args:
        name: Of the node; the runtime may have made it up.
        kind: Of the operator, such as "Conv", with what implements it where the runtime says so.
        ms: Mean of the middle half of the runs: profilers count in whole microseconds.
    """

    name: str
    kind: str
    ms: float


def operator_times(
    model: Path, *, runtime: str, threads: int, images: Array, runs: int = 50
) -> tuple[OperatorTime, ...]:
    """Profiles a network; returns its operators in order of execution.

    Args:
        model: A file that the runtime loads.
        runtime: One of `PROFILED`.
        threads: Threads that one run may use.
        images: The input.
        runs: Runs that count; a few before them do not.

    Raises:
        InputError: The runtime has no profiler.
    """
    if runtime not in PROFILED:
        raise InputError(f"{runtime} has no profile of operators that is read here; {' and '.join(PROFILED)} have")
    profile = _profile_ort if runtime == "onnxruntime" else _profile_openvino
    times = profile(model, threads, images, runs + _WARM_UP)
    return tuple(
        OperatorTime(name=name, kind=kind, ms=_middle_mean(ms[_WARM_UP:])) for (name, kind), ms in times.items()
    )


_WARM_UP = 5
_Times = dict[tuple[str, str], list[float]]


def _middle_mean(ms: list[float]) -> float:
    ordered, quarter = sorted(ms), len(ms) // 4
    return float(np.mean(ordered[quarter : len(ms) - quarter]))


def _profile_ort(model: Path, threads: int, images: Array, runs: int) -> _Times:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for _ in range(runs):
            session.run(None, {name: images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: _Times = {}
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    for event in sorted(nodes, key=lambda event: event["ts"]):
        key = (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"])
        times.setdefault(key, []).append(event["dur"] / 1e3)
    return times


def _profile_openvino(model: Path, threads: int, images: Array, runs: int) -> _Times:
    import openvino as ov

    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": True,
    }
    request = ov.Core().compile_model(str(model), "CPU", settings).create_infer_request()
    times: _Times = {}
    for _ in range(runs):
        request.infer({0: images})
        for entry in request.profiling_info:  # what took less than a microsecond counts as not run, with a time of 0
            key = (entry.node_name, f"{entry.node_type} ({entry.exec_type})")
            times.setdefault(key, []).append(entry.real_time.total_seconds() * 1e3)
    return {key: ms for key, ms in times.items() if any(ms)}

"""Benchmark tools of runtimes that have no Python on the device: how to call each, and what its output says.

>>> TOOLS["trtexec"].read(text)  # doctest: +SKIP
ToolTimes(n=1000, min=0.051, p50=0.053, mean=0.054, p90=0.055, std=None)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nas2edge.errors import FormatError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTimes:
    """What one call of a tool says, in milliseconds; None is what it does not say.

    Args:
        n: Runs that were timed.
        min: Fastest run.
        p50: Median, or the mean where the tool has no median.
        p90: Ninth decile.
        std: Standard deviation.
        resolution: Last digit that is printed.
    """

    n: int
    min: float
    p50: float
    p90: float | None = None
    std: float | None = None
    resolution: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A benchmark tool.

    Args:
        name: Its program.
        runtime: What it measures, as in tables.
        suffix: Of the models that it reads.
        options: The call by precision, for sh: $MODEL, $THREADS, $SHAPE, $SECONDS are set; it prints or writes $OUT.
        version: A call that prints its version, for sh.
        median: Whether its latencies are medians, else means.
        stated: What it says beside these: "min", "p90", "std".
        read: Reads what it printed.
        refusals: Why it cannot measure so, by precision.
        batches: Whether it runs several images at once.
        lasts: Whether it runs a model for $SECONDS_PER_RUN at the end of the call, long enough for a power sensor.
    """

    name: str
    runtime: str
    suffix: str
    options: Mapping[str, str]
    version: str
    median: bool
    stated: tuple[str, ...]
    read: Callable[[str], ToolTimes]
    refusals: Mapping[str, str]
    batches: bool = True
    lasts: bool = True


def check_tool(tool: Tool, *, precision: str, batch: int) -> None:
    """Checks that a tool can measure so.

    Raises:
        InputError: It cannot; says why.
    """
    if precision not in tool.options:
        raise InputError(f"{tool.name} cannot measure {precision} here: {tool.refusals[precision]}")
    if batch > 1 and not tool.batches:
        raise InputError(f"{tool.name} runs one image at a time; leave --batch out")


_TRT_LINE = re.compile(r"GPU Compute Time: (.*)$", re.MULTILINE)
_TRT_VALUE = re.compile(r"(min|max|mean|median|percentile\(\d+%\))\s*=\s*([\d.eE+-]+) ms")
_TRT_RUNS = re.compile(r"Timing trace has (\d+) queries")


def read_trtexec_log(text: str) -> ToolTimes:
    """Reads trtexec's performance summary: GPU compute time, without copies (as with --noDataTransfers).

    Raises:
        FormatError: There is no summary, as after a failure.
    """
    lines = _TRT_LINE.findall(text)
    values = {name: float(value) for name, value in _TRT_VALUE.findall(lines[-1])} if lines else {}
    if not {"min", "median"} <= set(values):
        raise FormatError(f"no 'GPU Compute Time: min = ..., median = ...' of trtexec; {_last_line(text)}")
    runs = _TRT_RUNS.findall(text)
    return ToolTimes(n=int(runs[-1]) if runs else 1, min=values["min"], p50=values["median"],
                     p90=values.get("percentile(90%)"))  # fmt: skip


_TFLITE_COUNT = re.compile(
    r"count=(\d+)(?: first=[\d.e+]+)?(?: curr=[\d.e+]+)? min=([\d.e+]+) max=[\d.e+]+ avg=([\d.e+]+) std=([\d.e+]+)"
)


def read_benchmark_model(text: str) -> ToolTimes:
    """Reads what TensorFlow Lite's benchmark_model logs: the last count, min, avg and std, in microseconds.

    Raises:
        FormatError: There is no such line, as after a failure.
    """
    found = _TFLITE_COUNT.findall(text)
    if not found:
        raise FormatError(f"no 'count=... min=... avg=... std=...' of benchmark_model; {_last_line(text)}")
    n, least, mean, std = found[-1]
    return ToolTimes(n=int(n), min=float(least) / 1e3, p50=float(mean) / 1e3, std=float(std) / 1e3, resolution=1e-3)


_NCNN = re.compile(r"min\s*=\s*([\d.]+)\s+max\s*=\s*[\d.]+\s+avg\s*=\s*([\d.]+)")
_NCNN_LOOPS = re.compile(r"loop_count = (\d+)")


def read_benchncnn(text: str) -> ToolTimes:
    """Reads what benchncnn prints: min and avg, to a hundredth of a millisecond.

    Raises:
        FormatError: There is no such line, as after a failure.
    """
    found = _NCNN.findall(text)
    if not found:
        raise FormatError(f"no 'min = ... max = ... avg = ...' of benchncnn; {_last_line(text)}")
    loops = _NCNN_LOOPS.findall(text)
    return ToolTimes(
        n=int(loops[-1]) if loops else 1, min=float(found[-1][0]), p50=float(found[-1][1]), resolution=0.01
    )


def read_benchmark_app(text: str) -> ToolTimes:
    """Reads OpenVINO's benchmark_app: its JSON report (-json_stats) or what it prints, to a hundredth of a millisecond.

    Raises:
        FormatError: There is neither, as after a failure.
    """
    if text.lstrip().startswith("{"):
        try:
            results = json.loads(text)["execution_results"]
            median = results.get("latency (ms)", results.get("latency_median"))
            least = results.get("min latency", results.get("latency_min"))
            runs = results.get("total number of iterations", results.get("iterations_num"))
            return ToolTimes(n=int(runs), min=float(least), p50=float(median), resolution=0.01)
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise FormatError(f"no report of benchmark_app: {err!r}") from err
    values = dict(re.findall(r"(Count|Median|Min):\s+([\d.]+)", text))
    if set(values) != {"Count", "Median", "Min"}:
        raise FormatError(f"no 'Count, Median, Min' of benchmark_app; {_last_line(text)}")
    return ToolTimes(n=int(values["Count"]), min=float(values["Min"]), p50=float(values["Median"]), resolution=0.01)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"its last line is {lines[-1]!r}" if lines else "it printed nothing"


_TRTEXEC = (
    'trtexec --onnx="$MODEL" --useCudaGraph --useSpinWait --noDataTransfers --warmUp=200 --duration="$SECONDS_PER_RUN" '
    "--iterations=50 --timingCacheFile=timing.cache"
)
_BENCHMARK_MODEL = (
    'benchmark_model --graph="$MODEL" --num_threads="$THREADS" --use_xnnpack=true --warmup_min_secs=0.2 --num_runs=50 '
    '--min_secs="$SECONDS_PER_RUN"'
)
_BENCHMARK_APP = (
    'benchmark_app -m "$MODEL" -d CPU -hint none -api sync -nireq 1 -nstreams 1 -nthreads "$THREADS" '
    '-t "$SECONDS_PER_RUN" -report_type no_counters -json_stats -report_folder "$FOLDER"'
)
# It computes in float16 wherever the CPU can, and has no option against that; what it did is checked at ingestion.
_BENCHNCNN = 'benchncnn "$LOOPS" "$THREADS" 0 -1 0 param="$MODEL" shape="$SHAPE"'

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        tool.name: tool
        for tool in (
            Tool(
                name="trtexec",
                runtime="TensorRT",
                suffix=".onnx",
                options={
                    "fp32": f"{_TRTEXEC} --noTF32",
                    "fp16": f"{_TRTEXEC} --fp16",
                    "int8": f"{_TRTEXEC} --int8 --fp16",
                },
                version="trtexec --help 2>&1 | head -n 1",
                median=True,
                stated=("min", "p90"),
                read=read_trtexec_log,
                refusals={},
            ),
            Tool(
                name="benchmark_model",
                runtime="TFLite",
                suffix=".tflite",
                options={
                    "fp32": f"{_BENCHMARK_MODEL} --xnnpack_force_fp16=false",
                    "fp16": f"{_BENCHMARK_MODEL} --xnnpack_force_fp16=true",
                },
                version="echo unknown",
                median=False,
                stated=("min", "std"),
                read=read_benchmark_model,
                refusals={"int8": "random blocks have no calibration images to quantise a TFLite model with"},
            ),
            Tool(
                name="benchncnn",
                runtime="ncnn",
                suffix=".param",
                options={"fp32": _BENCHNCNN, "fp16": _BENCHNCNN},
                version="echo unknown",
                median=False,
                stated=("min",),
                read=read_benchncnn,
                refusals={"int8": "an int8 model needs a calibration table of real images (ncnn2table)"},
                batches=False,
                lasts=False,
            ),
            Tool(
                name="benchmark_app",
                runtime="OpenVINO",
                suffix=".onnx",
                options={
                    "fp32": f"{_BENCHMARK_APP} -infer_precision f32",
                    "fp16": f"{_BENCHMARK_APP} -infer_precision f16",
                    "int8": f"{_BENCHMARK_APP} -infer_precision f32",
                },
                version="benchmark_app --version 2>&1 | tail -n 1",
                median=True,
                stated=("min",),
                read=read_benchmark_app,
                refusals={},
            ),
        )
    }
)
"""The tools, by the name of their program."""

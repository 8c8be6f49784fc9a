"""What this machine is measured with: runtime, precision, threads, batch; and how each executes an item.

>>> target = Target(runtime="openvino", threads=2)
>>> check_target(target)  # doctest: +SKIP
>>> prepare = make_prepare(target, rng=rng)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from nas2edge.cores import count_cores
from nas2edge.device import Device
from nas2edge.errors import InputError
from nas2edge.latency.borders import border_model, bordered_model
from nas2edge.latency.fresh import FreshProcesses
from nas2edge.latency.guard import Timed
from nas2edge.latency.machine import Machine
from nas2edge.latency.ncnn_model import ncnn_border, ncnn_model
from nas2edge.latency.protocol import Item
from nas2edge.optional import require

if TYPE_CHECKING:
    import onnx

    from nas2edge.runtimes import Session

LOCAL_RUNTIMES = ("onnxruntime", "openvino", "ncnn")
"""Runtimes that `profile` measures in its own process."""

REMOTE_RUNTIMES = ("tensorrt", "tensorrt-rtx", "tflite")
"""Runtimes that only their own tools time, on their devices: through `--pack` and `--ingest`."""

PRECISIONS = ("fp32", "fp16", "int8")

Quantise = Callable[["onnx.ModelProto"], "onnx.ModelProto"]
"""Turns a float32 graph into one with integer convolutions."""

_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn"}
_EXTRAS = {"openvino": "openvino", "ncnn": "ncnn"}
_MODULES = {
    "onnxruntime": "nas2edge.runtimes.ort",
    "openvino": "nas2edge.runtimes.openvino",
    "ncnn": "nas2edge.runtimes.ncnn",
}
_OPTIONS = {
    "onnxruntime": "intra_op_num_threads={threads}, inter_op_num_threads=1, sequential, IO binding",
    "openvino": "INFERENCE_NUM_THREADS={threads}, NUM_STREAMS=1, LATENCY, INFERENCE_PRECISION_HINT=f32",
    "ncnn": "num_threads={threads}, no Vulkan, half precisions off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How networks are executed on this machine.

    Args:
        runtime: One of `LOCAL_RUNTIMES`.
        precision: "fp32", "fp16" or "int8".
        threads: Threads that share one operator.
        batch: Images in a run.
    """

    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1

    @property
    def value_bytes(self) -> int:
        """Bytes of one weight or activation value."""
        return {"fp32": 4, "fp16": 2, "int8": 1}[self.precision]


def check_target(target: Target) -> None:
    """Checks that this machine can execute networks so.

    Raises:
        InputError: The runtime cannot do that here; says why, and what to do.
        MissingDependencyError: The runtime's package is not installed.
    """
    if target.runtime in REMOTE_RUNTIMES:
        raise InputError(
            f"{target.runtime} cannot be measured from Python: its own tool times networks on its device. Write the "
            "models for it with --pack, run the script there and read the results with --ingest, or use --ssh"
        )
    if target.runtime not in LOCAL_RUNTIMES:
        raise InputError(f"{target.runtime} cannot be measured; expected one of {', '.join(LOCAL_RUNTIMES)}")
    if target.runtime in _EXTRAS:
        require(target.runtime, extra=_EXTRAS[target.runtime], purpose=f"measuring {_NAMES[target.runtime]}")
    if target.threads > (cores := count_cores()):
        raise InputError(f"--threads {target.threads} is more than this process may use, which is {cores}; threads "
                         "that share a core wait for each other")  # fmt: skip
    if (reason := _REFUSALS[target.runtime](target)) is not None:
        raise InputError(f"{_NAMES[target.runtime]} cannot be measured in {target.precision} at batch {target.batch} "
                         f"here: {reason}")  # fmt: skip


def make_prepare(target: Target, *, rng: np.random.Generator, quantise: Quantise | None = None) -> FreshProcesses:
    """Returns what builds items with random weights, for execution by a runtime on this CPU, each in its own process.

    Args:
        target: How to execute them; see `check_target`.
        rng: Draws weights and images.
        quantise: Makes int8 graphs; needed for that precision.
    """
    return FreshProcesses(_Build(target, quantise), rng=rng, preload=[__name__, _MODULES[target.runtime], "onnx"])


@dataclass(frozen=True, slots=True)
class _Build:
    target: Target
    quantise: Quantise | None

    def __call__(self, item: Item, rng: np.random.Generator) -> Timed:
        load = _load_ncnn if self.target.runtime == "ncnn" else _load_onnx
        session, shape = load(item, self.target, rng, self.quantise)
        timed = session.prepare(rng.standard_normal(shape, dtype=np.float32))
        return timed if self.target.threads == 1 else _elapsed_only(timed)


def describe(target: Target) -> str:
    """Returns the runtime's options, in words."""
    text = _OPTIONS[target.runtime].format(threads=target.threads)
    return text + (", spinning as by default" if target.threads > 1 and target.runtime == "onnxruntime" else "")


def device_of(target: Target, machine: Machine, *, name: str) -> Device:
    """Returns the device of a table that is measured here."""
    return Device(
        name=name,
        board=machine.board,
        chip=machine.chip,
        runtime=_NAMES[target.runtime],
        runtime_version=version(target.runtime),
        precision=target.precision,
        batch=target.batch,
        threads=target.threads,
        power_mode=machine.governor,
        clocks="" if machine.mhz is None else f"{machine.mhz:.0f} MHz as read at the start",
        memory=machine.memory,
        os=machine.os,
    )


def target_of(device: Device) -> Target:
    """Returns how the networks of a table are executed here, from its device.

    Raises:
        InputError: The table's runtime is none that runs in this process.
    """
    runtime = next((name for name, words in _NAMES.items() if words == device.runtime), None)
    if runtime is None:
        raise InputError(f"the table {device.name!r} is of {device.runtime}, which cannot be measured here; expected "
                         f"{', '.join(_NAMES.values())}")  # fmt: skip
    return Target(runtime=runtime, precision=device.precision, threads=device.threads or 1, batch=device.batch)


def item_model(item: Item, *, rng: np.random.Generator, batch: int = 1) -> onnx.ModelProto:
    """Returns the ONNX graph of an item with random weights: a network, blocks between thin ends, or a border."""
    from nas2edge.graph import chain_model, network_model, random_weights

    if item.border is not None:
        return border_model(item.border, rng=rng, batch=batch)
    if item.layers[0].op == "first_conv" and item.layers[-1].op == "mbpool":
        return network_model(item.layers, random_weights(item.layers, rng), batch=batch)
    if not item.bordered:
        return chain_model(item.layers, random_weights(item.layers, rng), batch=batch)
    return bordered_model(item.layers, rng=rng, batch=batch)


def _load_onnx(
    item: Item, target: Target, rng: np.random.Generator, quantise: Quantise | None
) -> tuple[Session, tuple[int, ...]]:
    from nas2edge.runtimes import open_session

    model = item_model(item, rng=rng, batch=target.batch)
    if target.precision == "int8":
        assert quantise is not None, "int8 needs a function that quantises"
        model = quantise(model)
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    return open_session(model.SerializeToString(), runtime=target.runtime, threads=target.threads), shape


def _load_ncnn(
    item: Item, target: Target, rng: np.random.Generator, quantise: Quantise | None
) -> tuple[Session, tuple[int, ...]]:
    from nas2edge.graph import random_weights
    from nas2edge.runtimes import open_session

    if item.border is not None:
        param, weights = ncnn_border(item.border)
        shape = (1, 1, item.border[0], item.border[0])
    else:
        first, last = item.layers[0], item.layers[-1]
        whole = first.op == "first_conv" and last.op == "mbpool"
        param, weights = ncnn_model(item.layers, random_weights(item.layers, rng), bordered=item.bordered and not whole)
        entering = first.in_chs if first.op == "first_conv" or not item.bordered else 1
        shape = (1, entering, first.hw_in, first.hw_in)
    with TemporaryDirectory(prefix="nas2edge-") as folder:
        path = Path(folder) / "model.param"
        path.write_text(param, encoding="utf-8")
        path.with_suffix(".bin").write_bytes(weights)
        return open_session(path, runtime="ncnn", threads=target.threads), shape


def _elapsed_only(timed: Timed) -> Timed:
    """With several threads the calling one may rest while others compute, which says nothing."""

    def elapsed_only(n: int) -> tuple[float, float]:
        elapsed, _ = timed(n)
        return elapsed, elapsed

    return elapsed_only


def _refuse_onnxruntime(target: Target) -> str | None:
    if target.precision == "fp16":
        return "its CPU kernels compute in float32 and convert half precision around every operator; use fp32 or int8"
    return None


def _refuse_openvino(target: Target) -> str | None:
    if target.precision != "fp16":
        return None
    return "sessions ask it for float32, since most CPUs have no half-precision arithmetic; use fp32 or int8"


def _refuse_ncnn(target: Target) -> str | None:
    if target.batch > 1:
        return "ncnn runs one image at a time; leave --batch out"
    if target.precision == "int8":
        return "ncnn's int8 needs a calibration table of real images (ncnn2table), which random blocks do not have"
    if target.precision == "fp16":
        return "sessions here ask ncnn for float32; use --pack ncnn, whose benchncnn computes in float16 where it can"
    return None


_REFUSALS: dict[str, Callable[[Target], str | None]] = {
    "onnxruntime": _refuse_onnxruntime,
    "openvino": _refuse_openvino,
    "ncnn": _refuse_ncnn,
}

"""Which runtimes there are, which files each one loads, and how to open one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from nas2edge.errors import InputError, MissingDependencyError, UnknownNameError
from nas2edge.optional import is_installed, require
from nas2edge.runtimes.cuda_memory import find_memory
from nas2edge.runtimes.gpu import find_gpu
from nas2edge.runtimes.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    module: str
    packages: tuple[str, ...]
    extra: str
    suffixes: tuple[str, ...]
    any_of: tuple[str, ...] = ()  # packages of which one is enough
    needs_gpu: bool = False


TENSORRT_PACKAGES = ("tensorrt", "tensorrt_rtx")
"""The vendor's, and TensorRT-RTX: in the order in which they are tried."""


_ENTRIES = {
    "onnxruntime": _Entry(module="ort", packages=(), extra="", suffixes=(".onnx", ".ort")),
    "openvino": _Entry(module="openvino", packages=("openvino",), extra="openvino", suffixes=(".xml", ".onnx")),
    "ncnn": _Entry(module="ncnn", packages=("ncnn",), extra="ncnn", suffixes=(".param",)),
    "litert": _Entry(module="litert", packages=("ai_edge_litert",), extra="tflite", suffixes=(".tflite",)),
    "torch": _Entry(module="pytorch", packages=("torch",), extra="export", suffixes=(".pt2", ".pt")),
    "tensorrt": _Entry(
        module="tensorrt",
        packages=(),
        extra="tensorrt",
        suffixes=(".engine", ".plan", ".trt"),
        any_of=TENSORRT_PACKAGES,
        needs_gpu=True,
    ),
}
RUNTIMES = tuple(_ENTRIES)
"""Names of the runtimes."""


def open_session(model: Path | bytes, *, runtime: str, threads: int = 1) -> Session:
    """Loads a network.

    Args:
        model: A file that the runtime reads: ONNX for onnxruntime and openvino, IR (.xml) for openvino, .ort for
            onnxruntime, .param with its .bin beside it for ncnn, .tflite for litert, .pt2 (torch.export) or TorchScript
            (.pt) for torch, an engine (.engine, .plan, .trt) for tensorrt. Or an ONNX model's bytes.
        runtime: One of `RUNTIMES`.
        threads: Threads that one run may use.

    Raises:
        UnknownNameError: There is no such runtime.
        MissingDependencyError: Its package is not installed.
        InputError: The file is missing or of a kind that the runtime does not load.
        RuntimeFailedError: The runtime refuses the network.
    """
    entry = _entry(runtime)
    if isinstance(model, Path):
        if model.suffix not in entry.suffixes:
            raise InputError(f"{runtime} does not load {model}; it loads files that end in {', '.join(entry.suffixes)}")
        if not model.is_file():
            raise InputError(f"there is no file {model}")
    opened: Session = load_runtime(runtime).open_session(model, threads=threads)
    return opened


def load_runtime(runtime: str) -> ModuleType:
    """Imports a runtime's module, and with it the runtime.

    Raises:
        UnknownNameError: There is no such runtime.
        MissingDependencyError: Its package is not installed.
    """
    check_installed(runtime)
    return import_module(f"nas2edge.runtimes.{_entry(runtime).module}")


def check_installed(runtime: str) -> None:
    """Checks, without importing it, that a runtime can be used here.

    Raises:
        UnknownNameError: There is no such runtime.
        MissingDependencyError: Its package is not installed.
    """
    entry = _entry(runtime)
    needed = entry.packages
    if entry.any_of and not any(is_installed(name) for name in entry.any_of):
        needed += entry.any_of[:1]
    require(*needed, extra=entry.extra, purpose=f"running a network by {runtime}")


def runs_here(runtime: str) -> bool:
    """Returns whether a runtime is installed, and a GPU can be used if it needs one.

    Raises:
        UnknownNameError: There is no such runtime.
    """
    try:
        check_installed(runtime)
    except MissingDependencyError:
        return False
    return not _entry(runtime).needs_gpu or (find_gpu() is not None and find_memory() is not None)


def suffixes_of(runtime: str) -> tuple[str, ...]:
    """Returns how the files end that a runtime loads.

    Raises:
        UnknownNameError: There is no such runtime.
    """
    return _entry(runtime).suffixes


def runtime_of(model: Path) -> str:
    """Returns the first runtime that loads a file of this name.

    Raises:
        InputError: None does.
    """
    for name, entry in _ENTRIES.items():
        if model.suffix in entry.suffixes:
            return name
    known = sorted({suffix for entry in _ENTRIES.values() for suffix in entry.suffixes})
    raise InputError(f"no runtime here loads {model}; expected a file that ends in {', '.join(known)}")


def _entry(runtime: str) -> _Entry:
    if runtime not in _ENTRIES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    return _ENTRIES[runtime]

"""What all ways to a TensorRT engine share: what was built, which GPU is here, and where timings are kept."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU: its name, and its compute capability such as "8.7"."""

    name: str
    compute_capability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine that was built.

    Args:
        runtime: What built it and will load it, such as "TensorRT 10.3.0".
        compute_capabilities: Of the GPUs that it is for.
        gpu: Name of the GPU that it was built on; empty if on none.
        platform: Of the machine that it is for.
        strongly_typed: Whether its layers have the precisions of the ONNX file, by the rules of the builder.
        why_not_run: Why it cannot be run from here; empty if it can.
        details: Anything else for the engine's description.
    """

    runtime: str
    compute_capabilities: tuple[str, ...]
    gpu: str
    platform: str
    strongly_typed: bool
    why_not_run: str
    details: Mapping[str, Any] = field(default_factory=dict)


def this_platform() -> str:
    """Returns the operating system and processor, such as "Linux aarch64"."""
    return f"{platform.system()} {platform.machine()}"


def find_gpu() -> Gpu | None:
    """Returns the first GPU that an NVIDIA driver answers for, or None."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    device = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name = ctypes.create_string_buffer(_NAME_BYTES)
    version = [ctypes.c_int(), ctypes.c_int()]
    failed = driver.cuDeviceGetName(name, _NAME_BYTES, device)
    for value, attribute in zip(version, (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR), strict=True):
        failed = failed or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    if failed:
        return None
    return Gpu(name=name.value.decode(errors="replace"), compute_capability=f"{version[0].value}.{version[1].value}")


def default_timing_cache(version: str, gpu: Gpu) -> Path:
    """Returns where a user's kernel timings are kept: they hold for one version of TensorRT and one kind of GPU."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"tensorrt-{version}-sm{gpu.compute_capability}-{gpu.name}").strip("-")
    return _cache_folder() / f"{name}.timing"


def _cache_folder() -> Path:
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nas2edge"

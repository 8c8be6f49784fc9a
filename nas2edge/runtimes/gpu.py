"""The GPU of this machine, as NVIDIA's driver tells it."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU: its name, and its compute capability such as "8.7"."""

    name: str
    compute_capability: str


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

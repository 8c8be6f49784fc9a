"""Memory that stays with the process.

Tensors of activations come and go at every step. Left to their defaults, the C library gives each large one back to the
system and gets it again, and the system clears it page by page, 4 KiB at a time: a tenth of a training step.
"""

from __future__ import annotations

import ctypes
import os

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of mallopt in glibc's malloc.h
_NEVER, _PAD = -1, 64 << 20
_LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # PyTorch reads it once, when it makes its first tensor


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, and asks for large pages; call it before any tensor is made.

    The process's memory then stays at its peak. Later processes that this one starts are not affected.

    Returns:
        Whether the C library could be told; only glibc (Linux) can.
    """
    asked = os.environ.get(_LARGE_PAGES)
    os.environ[_LARGE_PAGES] = asked or "1"
    torch.empty(1)
    if asked is None:
        del os.environ[_LARGE_PAGES]
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be asked
        return False
    wanted = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER, _M_TOP_PAD: _PAD}
    return all(bool(mallopt(name, value)) for name, value in wanted.items())

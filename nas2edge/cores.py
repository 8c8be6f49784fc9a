"""How many cores this process may use, and how to start further processes.

>>> count_cores() >= 1
True
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.context import BaseContext


def count_cores() -> int:
    """Returns the number of logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def clean_processes(preload: Sequence[str]) -> BaseContext:
    """Returns how to start processes that are no copies of this one, whose threads may hold locks or be amid a call.

    Args:
        preload: Modules to import before a process is forked, where processes can be.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context

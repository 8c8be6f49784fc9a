"""How many cores this process may use.

>>> count_cores() >= 1
True
"""

from __future__ import annotations

import os


def count_cores() -> int:
    """Returns the number of logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

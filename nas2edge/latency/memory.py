"""Taking the state of the memory out of what was measured.

The memory is shared with other cores and, on a host of virtual machines, with neighbours. How fast it is changes within
minutes, by a third and more. An item that needs much of it goes with the copy in memory that is timed around it, to a
power of 0.1 to 0.2 for whole networks, 0.1 to 0.8 for single blocks with many weights. The visits of one item differ in
nothing else, so they tell the power; the item's time in the usual state of the memory then follows.

    t(usual) = t * (usual copy / copy around the visit) ** power
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LEAST = 20  # visits beyond the first of each item, from which a power can be told


def power_of_memory(copies: Sequence[Sequence[float]], times: Sequence[Sequence[float]]) -> float:
    """Returns by which power of the copy's time the items' times go, from 0 to 1; 0 where too little is known.

    Args:
        copies: By item and visit, the time of the copy.
        times: Likewise, the item's own time.
    """
    x, y = (np.concatenate([_deviations(values) for values in entries]) for entries in (copies, times))
    spread = float(x @ x)
    if len(x) - len(copies) < _LEAST or not spread:
        return 0.0
    return float(np.clip(x @ y / spread, 0.0, 1.0))


def _deviations(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    logs = np.log(np.asarray(values, dtype=np.float64))
    return np.asarray(logs - logs.mean())

"""Statistics that several parts share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def kendall_tau(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Returns Kendall's tau-b of two sequences: 1 for the same order, -1 for the reverse; 0 if either is constant."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    pairs = np.triu_indices(len(x), k=1)
    sign_x = np.sign(x[:, None] - x)[pairs]
    sign_y = np.sign(y[:, None] - y)[pairs]
    untied = np.sqrt(float(np.abs(sign_x).sum()) * float(np.abs(sign_y).sum()))
    return float((sign_x * sign_y).sum() / untied) if untied else 0.0

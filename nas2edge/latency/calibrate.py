"""From the sum of a table's rows to whole networks: fitting the calibration, and validating it on other networks.

The fit is robust (networks beyond three median deviations are left out once) and non-negative, and it minimises
relative errors, so that small networks count as much as large ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas2edge.latency.roofline import solve_nonnegative
from nas2edge.latency.table import Calibration, Validation
from nas2edge.stats import kendall_tau

Floats = npt.NDArray[np.float64]

MIN_NETS = 5
_CACHE_SHARES = (0.25, 0.5, 0.75, 1.0)


def fit_calibration(
    sum_ms: npt.ArrayLike,
    weights_mb: npt.ArrayLike,
    measured_ms: npt.ArrayLike,
    *,
    cache_mb: float | None,
) -> Calibration:
    """Fits overhead, slope, and the cost of weights beyond the cache to whole networks.

    Part of the cache may belong to others (activations, neighbours on a shared machine), so the quarter of `cache_mb`
    that fits best is taken.

    Args:
        sum_ms: Sum of the rows of each network.
        weights_mb: Its weights, in 1e6 bytes.
        measured_ms: Its measured latency.
        cache_mb: Last-level cache; None if unknown, which leaves that term out.

    Returns:
        The calibration, or the plain sum if there are fewer than five networks.
    """
    x, weights, y = (np.asarray(values, dtype=np.float64) for values in (sum_ms, weights_mb, measured_ms))
    if len(y) < MIN_NETS:
        return Calibration(nets=0)
    best = _fit(x, np.zeros(len(x)), y, cache_mb=0.0)
    if cache_mb is not None:
        for share in _CACHE_SHARES:
            held = share * cache_mb
            fit = _fit(x, np.maximum(0.0, weights - held), y, cache_mb=held)
            # A term must pay for itself: noise alone improves a fit a little.
            if fit.spill_ms_per_mb and fit.rel_rms < 0.95 * best.rel_rms:
                best = fit
    return best


def validate(space: str, predicted_ms: npt.ArrayLike, measured_ms: npt.ArrayLike) -> Validation:
    """Compares predictions with measurements of networks that played no part in the calibration."""
    predicted, measured = (np.asarray(values, dtype=np.float64) for values in (predicted_ms, measured_ms))
    errors = predicted / measured - 1.0
    return Validation(
        space=space,
        nets=len(errors),
        mape=float(100 * np.abs(errors).mean()),
        bias=float(100 * np.median(errors)),
        within_5=float((np.abs(errors) <= 0.05).mean()),
        within_10=float((np.abs(errors) <= 0.10).mean()),
        kendall_tau=kendall_tau(predicted, measured),
    )


def _fit(x: Floats, spilled: Floats, y: Floats, *, cache_mb: float) -> Calibration:
    kept = np.ones(len(y), dtype=bool)
    for _ in range(2):
        terms = np.stack([np.ones(len(y)), x, spilled], axis=1) / y[:, None]
        scale = np.maximum(terms.max(axis=0), 1e-12)
        coefficients = solve_nonnegative(terms[kept] / scale, np.ones(int(kept.sum()))) / scale
        errors = terms @ coefficients - 1.0
        kept = np.abs(errors) <= max(3 * 1.4826 * float(np.median(np.abs(errors))), 1e-9)
    overhead, slope, spill = coefficients.tolist()
    return Calibration(
        overhead_ms=overhead,
        slope=slope,
        cache_mb=cache_mb if spill else 0.0,
        spill_ms_per_mb=spill,
        nets=len(y),
        rel_rms=float(np.sqrt(np.mean(errors**2))),
    )

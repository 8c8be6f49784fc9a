"""From the sum of a table's rows to whole networks: fitting the calibration, and validating it on other networks.

The fit is robust (networks beyond three standard deviations are left out) and non-negative, and it minimises relative
errors, so that small networks count as much as large ones. Networks whose weights exceed the cache vary more from run
to run, and more upwards, than those that fit in. So deviations are compared within either kind, and either kind counts
by how well it can be told. By one measure for both, the slower large ones were left out, and large networks came out
1.2 % too fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas2edge.latency.roofline import solve_nonnegative
from nas2edge.latency.table import Calibration, Validation
from nas2edge.stats import kendall_tau

Floats = npt.NDArray[np.float64]

MIN_NETS = 5
_CACHE_SHARES = (0.25, 0.5, 0.75, 1.0)
_WARM_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_GAIN = 0.95
_LEAST_SIGMA = 1e-9


def fit_calibration(
    sum_ms: npt.ArrayLike,
    weights_mb: npt.ArrayLike,
    measured_ms: npt.ArrayLike,
    *,
    cache_mb: float | None,
    launches: npt.ArrayLike | None = None,
) -> Calibration:
    """Fits overhead, slope, the cost of weights beyond the cache, and that of launches to whole networks.

    Part of the cache may belong to others (activations, neighbours on a shared machine), so the quarter of `cache_mb`
    that fits best is taken; likewise the share of the least number of launches that cost nothing.

    Args:
        sum_ms: Sum of the rows of each network.
        weights_mb: Its weights, in 1e6 bytes.
        measured_ms: Its measured latency.
        cache_mb: Last-level cache; None if unknown, which leaves that term out.
        launches: Its kernels; None leaves that term out.

    Returns:
        The calibration, or the plain sum if there are fewer than five networks.
    """
    x, weights, y = (np.asarray(values, dtype=np.float64) for values in (sum_ms, weights_mb, measured_ms))
    if len(y) < MIN_NETS:
        return Calibration(nets=0)
    n = np.zeros(len(y)) if launches is None else np.asarray(launches, dtype=np.float64)
    none, nothing, sigma = np.zeros(len(y)), 0.0, np.ones(len(y))
    best = _fit(x, none, none, y, sigma, cache_mb=nothing, warm=nothing)
    for held in () if cache_mb is None else [share * cache_mb for share in _CACHE_SHARES]:
        fit = _fit(x, np.maximum(0.0, weights - held), none, y, sigma, cache_mb=held, warm=nothing)
        best = _better(best, fit, pays=bool(fit.found.spill_ms_per_mb))
    held, sigma = best.found.cache_mb, best.sigma
    spilled = np.maximum(0.0, weights - held) * bool(best.found.spill_ms_per_mb)
    best = _fit(x, spilled, none, y, sigma, cache_mb=held, warm=nothing)
    if n.any():
        for warm in [share * float(n.min()) for share in _WARM_SHARES]:
            fit = _fit(x, spilled, n - warm, y, sigma, cache_mb=held, warm=warm)
            best = _better(best, fit, pays=bool(fit.found.launch_ms))
    return best.found


@dataclass(frozen=True, slots=True)
class _Fit:
    """A calibration, its errors (root mean square) in units of what was expected, and what they say of either kind."""

    found: Calibration
    rms: float
    sigma: Floats


def _better(best: _Fit, fit: _Fit, *, pays: bool) -> _Fit:
    """A further term must pay for itself: noise alone improves a fit a little."""
    return fit if pays and fit.rms < _GAIN * best.rms else best


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


def _fit(x: Floats, spilled: Floats, cold: Floats, y: Floats, sigma: Floats, *, cache_mb: float, warm: float) -> _Fit:
    kept = np.ones(len(y), dtype=bool)
    for _ in range(2):
        terms = np.stack([np.ones(len(y)), x, spilled, cold], axis=1) / y[:, None]
        scale = np.maximum(terms.max(axis=0), 1e-12)
        weighted = (terms / scale / sigma[:, None])[kept]
        coefficients = solve_nonnegative(weighted, 1.0 / sigma[kept]) / scale
        errors = terms @ coefficients - 1.0
        typical = _typical(np.abs(errors), spilled > 0)
        kept = np.abs(errors) <= 3 * typical
    overhead, slope, spill, launch = coefficients.tolist()
    found = Calibration(
        overhead_ms=overhead,
        slope=slope,
        cache_mb=cache_mb if spill else 0.0,
        spill_ms_per_mb=spill,
        nets=len(y),
        rel_rms=float(np.sqrt(np.mean(errors**2))),
        launch_ms=launch,
        warm_launches=warm if launch else 0.0,
    )
    return _Fit(found, rms=float(np.sqrt(np.mean((errors / sigma) ** 2))), sigma=typical)


def _typical(errors: Floats, spills: npt.NDArray[np.bool_]) -> Floats:
    """Returns the standard deviation, as the median tells it, of each network's kind."""
    sigma = np.ones(len(errors))
    for kind in (spills, ~spills):
        if kind.any():
            sigma[kind] = max(1.4826 * float(np.median(errors[kind])), _LEAST_SIGMA)
    return sigma

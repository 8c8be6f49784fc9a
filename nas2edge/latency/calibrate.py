"""From the sum of a table's rows to whole networks: fitting the calibration, and validating it on other networks.

The fit is robust (networks beyond three standard deviations are left out) and non-negative, and it minimises relative
errors, so that small networks count as much as large ones. Networks whose weights exceed the cache vary more from run
to run, and more upwards, than those that fit in. So deviations are compared within either kind, and either kind counts
by how well it can be told. By one measure for both, the slower large ones were left out, and large networks came out
1.2 % too fast. Where networks of both kinds were measured and one line does not suit them, either has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas2edge.latency.roofline import solve_nonnegative
from nas2edge.latency.table import Calibration, Validation
from nas2edge.stats import kendall_tau

Floats = npt.NDArray[np.float64]

MIN_NETS = 5
FOLDS = 5
_CACHE_SHARES = (0.25, 0.5, 0.75, 1.0)
_WARM_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_LINE = 3  # coefficients of a line for large networks: overhead, slope, cost of weights
_LEAST_SIGMA = 1e-9

MEMORY_POWER = 0.19
"""By which power of the time of a copy in memory the networks go whose weights exceed the cache.

Seen of ONNX Runtime and OpenVINO on one AMD EPYC (Zen 4), where the copy took 0.73 to 1.16 times as long as when the
tables were measured (docs/latency.md); another machine may have another. Visits within an hour tell a lesser power,
probably since a single copy tells the state of the memory badly.
"""


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
        The calibration, or the plain sum if there are fewer than five networks. It has another one for networks whose
        weights exceed the cache (`large`) if that explains five networks or more of either kind better.
    """
    x, weights, y = (np.asarray(values, dtype=np.float64) for values in (sum_ms, weights_mb, measured_ms))
    if len(y) < MIN_NETS:
        return Calibration(nets=0)
    n = np.zeros(len(y)) if launches is None else np.asarray(launches, dtype=np.float64)
    held = [] if cache_mb is None else [share * cache_mb for share in _CACHE_SHARES]
    one = _fit_line(x, weights, n, y, held=held)
    split = one.found.cache_mb or cache_mb or 0.0
    small = weights <= split
    if cache_mb is None or min(small.sum(), (~small).sum()) < MIN_NETS:
        return one.found
    kinds = [
        _fit_line(*(values[kind] for values in (x, weights, n, y)), held=at)
        for kind, at in ((small, []), (~small, [split]))
    ]
    errors = np.concatenate([fit.errors for fit in kinds])
    typical = np.concatenate([one.sigma[small], one.sigma[~small]])
    rms, before = (float(np.sqrt(np.mean((e / s) ** 2))) for e, s in ((errors, typical), (one.errors, one.sigma)))
    if not _pays(rms, before, n=len(y), further=_LINE):
        return one.found
    return replace(
        kinds[0].found, cache_mb=split, large=kinds[1].found, nets=len(y), rel_rms=float(np.sqrt(np.mean(errors**2)))
    )


def in_memory_state(calibration: Calibration, slower: float) -> Calibration:
    """Carries a calibration over to another state of the memory, for networks whose weights exceed the cache.

    Args:
        calibration: What was fitted to networks. If no weights cost anything in it, it stays as it is.
        slower: How much longer a copy in memory takes than then, as a share of that time.
    """
    if not calibration.cache_mb:
        return calibration
    of, factor = calibration.large or calibration, (1.0 + slower) ** MEMORY_POWER
    costs = {name: factor * getattr(of, name) for name in ("overhead_ms", "slope", "spill_ms_per_mb", "launch_ms")}
    return replace(calibration, large=replace(of, **costs))


def held_out(n: int, predict: Callable[[Sequence[int], Sequence[int]], Sequence[float]]) -> Floats:
    """Returns predictions of n networks, each by what was fitted to others only: four fifths of all.

    Args:
        n: How many networks. Neighbours fall into different fifths.
        predict: Called with the indices of the networks to fit to, and of those to predict.
    """
    found = np.zeros(n)
    for fold in range(FOLDS):
        others = [i for i in range(n) if i % FOLDS != fold]
        ours = list(range(fold, n, FOLDS))
        found[ours] = predict(others, ours)
    return found


def _fit_line(x: Floats, weights: Floats, n: Floats, y: Floats, *, held: Sequence[float]) -> _Fit:
    """Fits one line with those further terms that pay for themselves; `held` are the cache sizes to try."""
    none, nothing, sigma = np.zeros(len(y)), 0.0, np.ones(len(y))
    best = _fit(x, none, none, y, sigma, cache_mb=nothing, warm=nothing)
    for cache in held:
        fit = _fit(x, np.maximum(0.0, weights - cache), none, y, sigma, cache_mb=cache, warm=nothing)
        best = _better(best, fit, used=bool(fit.found.spill_ms_per_mb))
    cache, sigma = best.found.cache_mb, best.sigma
    spilled = np.maximum(0.0, weights - cache) * bool(best.found.spill_ms_per_mb)
    best = _fit(x, spilled, none, y, sigma, cache_mb=cache, warm=nothing)
    if n.any():
        for warm in [share * float(n.min()) for share in _WARM_SHARES]:
            fit = _fit(x, spilled, n - warm, y, sigma, cache_mb=cache, warm=warm)
            best = _better(best, fit, used=bool(fit.found.launch_ms))
    return best


@dataclass(frozen=True, slots=True)
class _Fit:
    """A calibration, its relative errors, also (root mean square) in units of what was expected, and what they say of
    either kind."""

    found: Calibration
    errors: Floats
    rms: float
    sigma: Floats


def _better(best: _Fit, fit: _Fit, *, used: bool) -> _Fit:
    return fit if used and _pays(fit.rms, best.rms, n=len(fit.errors), further=1) else best


def _pays(rms: float, before: float, *, n: int, further: int) -> bool:
    """Returns whether further coefficients pay for themselves, by the Bayesian information criterion (Schwarz 1978).

    Noise alone improves a fit a little; the fewer networks, the more.
    """
    return rms < before * math.exp(-further * math.log(n) / (2 * n))


def validate(space: str, predicted_ms: npt.ArrayLike, measured_ms: npt.ArrayLike) -> Validation:
    """Compares predictions with measurements of networks; no calibration may have known what it predicts."""
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
        if not coefficients[1]:  # a few networks whose noise hides what the blocks cost
            coefficients = np.array([0.0, _factor(weighted[:, 1], 1.0 / sigma[kept]) / scale[1], 0.0, 0.0])
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
    return _Fit(found, errors=errors, rms=float(np.sqrt(np.mean((errors / sigma) ** 2))), sigma=typical)


def _factor(x: Floats, y: Floats) -> float:
    """Returns the least-squares factor of a line through the origin."""
    return float(x @ y / (x @ x))


def _typical(errors: Floats, spills: npt.NDArray[np.bool_]) -> Floats:
    """Returns the standard deviation, as the median tells it, of each network's kind."""
    sigma = np.ones(len(errors))
    for kind in (spills, ~spills):
        if kind.any():
            sigma[kind] = max(1.4826 * float(np.median(errors[kind])), _LEAST_SIGMA)
    return sigma

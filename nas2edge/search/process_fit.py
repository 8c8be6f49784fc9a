"""Fitting of Gaussian processes in NumPy: length scales and variances by the gradient of the marginal likelihood.

>>> process = fit_process(features, accuracies, seed=0)
>>> process.predict(features), process.errors(features)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas2edge.search.predictor import Array, Process, gaussian

_STEPS = 80
_RATE = 0.1
# Normal priors of the logarithms, of features in [0, 1] and accuracies of unit variance: mean and standard deviation.
_SCALE, _SIGNAL, _NOISE = (np.log(2.0), 3.0), (np.log(3.0), 2.0), (np.log(0.03), 1.5)
_LEAST_SCALE, _GREATEST_SCALE = 0.1, 50.0


def fit_process(features: Array, target: Array, seed: int) -> Process:
    """Fits a Gaussian process, its length scales and variances at the greatest posterior probability.

    Args:
        features: Shape (n, f).
        target: Accuracies: shape (n,).
        seed: Without effect, as nothing is drawn.
    """
    spread = float(target.std()) or 1.0
    scaled = (target - target.mean()) / spread
    n = features.shape[1]
    start = np.r_[np.full(n, _SCALE[0]), _SIGNAL[0], _NOISE[0]]
    found = _ascend(lambda at: _gradient(at, features, scaled), start, n)
    return _solved(features, target, np.exp(found[:n]), spread**2 * np.exp(found[n:]))


def fit_process_like(model: Process) -> Callable[[Array, Array, int], Process]:
    """Returns what fits a Gaussian process with the length scales and variances of another, which takes no search."""
    return lambda features, target, seed: _solved(features, target, model.scales, model.settings[1:3])


def with_errors_of(process: Process, excess: Array) -> Process:
    """Returns a process with its errors scaled: held-out errors, divided by them so far, came to `excess`."""
    settings = process.settings.copy()
    settings[3] *= max(float(np.sqrt((excess**2).mean())), 1e-3)
    return Process(process.inputs, process.scales, process.weights, settings)


def _ascend(gradient: Callable[[Array], Array], start: Array, n: int) -> Array:
    """Climbs by Adam (Kingma and Ba 2015), with steps that fall to nothing; the first n are logarithms of scales."""
    at, mean, square = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(_STEPS):
        slope = gradient(at)
        mean = 0.9 * mean + 0.1 * slope
        square = 0.99 * square + 0.01 * slope**2
        rate = _RATE * 0.5 * (1.0 + np.cos(np.pi * step / _STEPS))
        at = at + rate * (mean / (1 - 0.9 ** (step + 1))) / (np.sqrt(square / (1 - 0.99 ** (step + 1))) + 1e-8)
        at[:n] = np.clip(at[:n], np.log(_LEAST_SCALE), np.log(_GREATEST_SCALE))
    return at


def _gradient(at: Array, features: Array, scaled: Array) -> Array:
    """Returns the gradient of the logarithm of the posterior: of log length scales, log signal and log noise."""
    n = features.shape[1]
    inputs, signal, noise = features / np.exp(at[:n]), np.exp(at[n]), np.exp(at[n + 1])
    kernel = signal * gaussian(inputs, inputs)
    inverse = np.linalg.inv(kernel + noise * np.eye(len(inputs)))
    weights = inverse @ scaled
    pull = np.outer(weights, weights) - inverse
    pulled = pull * kernel
    # Of sum_ij pulled_ij (x_id - x_jd)^2 / 2, without the array of all differences.
    of_scales = pulled.sum(axis=1) @ inputs**2 - (inputs * (pulled @ inputs)).sum(axis=0)
    slope = np.r_[of_scales, 0.5 * pulled.sum(), 0.5 * noise * np.trace(pull)]
    centres, widths = (
        np.r_[np.full(n, _SCALE[0]), _SIGNAL[0], _NOISE[0]],
        np.r_[np.full(n, _SCALE[1]), _SIGNAL[1], _NOISE[1]],
    )
    return np.asarray(slope - (at - centres) / widths**2)


def _solved(features: Array, target: Array, scales: Array, variances: Array) -> Process:
    inputs = np.ascontiguousarray(features / scales)
    signal, noise = float(variances[0]), float(variances[1])
    kernel = signal * gaussian(inputs, inputs) + noise * np.eye(len(inputs))
    weights = np.linalg.solve(kernel, target - target.mean())
    return Process(inputs, np.asarray(scales), weights, np.array([target.mean(), signal, noise, 1.0]))

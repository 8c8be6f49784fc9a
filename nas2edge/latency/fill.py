"""Filling what was not measured: a roofline through the measured rows, and a Gaussian process on what it leaves over.

    log t(block) = log roofline(block) + mean + g(block),   g ~ GP(0, k)

The roofline carries the scale (`nas2edge.latency.roofline`); the process knows that blocks alike in sides, channels,
kernel, stride and shortcut are off alike. Its posterior gives every filled row an error of its own, and says what the
errors of a network's rows have in common, which a sum of independent errors would miss.

>>> model = fit_fill([row.layer for row in rows], [row.p50 for row in rows])
>>> ms, rel_sigma = model.predict(layers)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas2edge.errors import TableError
from nas2edge.latency.roofline import MIN_ROWS, block_terms, fit_terms
from nas2edge.latency.table import INTERPOLATED, TableRow
from nas2edge.plan import LayerSpec

Floats = npt.NDArray[np.float64]

LENGTHS: Floats = np.array([1.2, 1.5, 1.5, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0])
"""Distances by feature at which two blocks have little in common, before any measurement."""

_AMPLITUDE, _NOISE = 0.1, 0.01
_LEAST_NOISE = 0.005
_STEPS = (0.6, 0.8, 1.25, 1.7)
_ROUNDS = 3
_STIFFNESS = 1.0  # standard deviation of a length's logarithm around its value before any measurement
_TUNED_ROWS = 300
_VECTOR = 16  # channels that runtimes compute together; a remainder costs as much as a full vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Covariance of two blocks: amplitude^2 exp(-distance^2 / 2), zero between kinds of block."""

    lengths: Floats
    amplitude: float
    noise: float

    def between(self, a: Floats, b: Floats) -> Floats:
        """Returns covariances: features (n, f) and (m, f) to (n, m). The last feature is the kind of block."""
        scaled_a, scaled_b = a[:, :-1] / self.lengths, b[:, :-1] / self.lengths
        squares = (scaled_a**2).sum(1)[:, None] + (scaled_b**2).sum(1) - 2.0 * scaled_a @ scaled_b.T
        same = a[:, -1][:, None] == b[:, -1]
        return np.asarray(self.amplitude**2 * np.exp(-0.5 * np.maximum(squares, 0.0)) * same)


@dataclass(frozen=True, slots=True, kw_only=True)
class FillModel:
    """A fitted model.

    Args:
        coefficients: Of the roofline, in milliseconds a unit.
        mean: Mean of the logarithms that the roofline leaves over.
        kernel: Covariance of the rest.
        features: Of the measured blocks: shape (n, f).
        factor: Cholesky factor of their covariance with noise: shape (n, n).
        solved: That covariance's inverse times the rest: shape (n,).
        inflation: Factor on sigmas, so that measured rows, each left out, are off by one sigma on average.
    """

    coefficients: Floats
    mean: float
    kernel: Kernel
    features: Floats
    factor: Floats
    solved: Floats
    inflation: float

    def predict(self, layers: Sequence[LayerSpec]) -> tuple[Floats, Floats]:
        """Returns milliseconds and relative one-sigma errors of blocks."""
        shared = self.kernel.between(block_features(layers), self.features)
        rest = self.mean + shared @ self.solved
        ms = np.maximum(_terms(layers) @ self.coefficients, 1e-9) * np.exp(rest)
        explained = (np.linalg.solve(self.factor, shared.T) ** 2).sum(axis=0)
        variance = np.maximum(self.kernel.amplitude**2 - explained, 0.0) + self.kernel.noise**2
        return ms, self.inflation * np.sqrt(variance)

    def covariance(self, layers: Sequence[LayerSpec]) -> Floats:
        """Returns covariances of the blocks' relative errors, noise left out: shape (m, m)."""
        features = block_features(layers)
        half = np.linalg.solve(self.factor, self.kernel.between(features, self.features).T)
        return np.asarray(self.inflation**2 * (self.kernel.between(features, features) - half.T @ half))


def fit_fill(layers: Sequence[LayerSpec], ms: Sequence[float]) -> FillModel:
    """Fits the model to measured blocks.

    Raises:
        TableError: They are fewer than 24.
    """
    if len(layers) < MIN_ROWS:
        raise TableError(f"{len(layers)} rows are measured, and filling the others needs {MIN_ROWS}; give more time")
    target, terms, features = np.asarray(ms, dtype=np.float64), _terms(layers), block_features(layers)
    coefficients = fit_terms(terms, target)
    rest = np.log(target / np.maximum(terms @ coefficients, 1e-9))
    mean = float(rest.mean())
    tuned = np.random.default_rng(0).permutation(len(layers))[:_TUNED_ROWS]
    kernel = _tune(features[tuned], rest[tuned] - mean)
    covariance = kernel.between(features, features) + kernel.noise**2 * np.eye(len(layers))
    inverse = np.linalg.inv(covariance)
    solved = inverse @ (rest - mean)
    # Each row left out, in closed form: residual and variance follow from the inverse.
    standardised = solved / np.sqrt(np.diag(inverse))
    return FillModel(
        coefficients=coefficients,
        mean=mean,
        kernel=kernel,
        features=features,
        factor=np.asarray(np.linalg.cholesky(covariance), dtype=np.float64),
        solved=solved,
        inflation=max(1.0, float(np.sqrt(np.mean(standardised**2)))),
    )


def fill_rows(blocks: Sequence[LayerSpec], measured: Sequence[TableRow]) -> tuple[TableRow, ...]:
    """Returns the measured rows, and an interpolated one for each other block.

    Raises:
        TableError: There are fewer than 24 measured rows, and others to fill.
    """
    known = {row.layer.key: row for row in measured}
    absent = [layer for layer in blocks if layer.key not in known]
    if not absent:
        return tuple(measured)
    ms, rel_sigma = fit_fill([row.layer for row in measured], [row.p50 for row in measured]).predict(absent)
    filled = [
        TableRow(layer=replace(layer, name=""), p50=float(value), status=INTERPOLATED, rel_sigma=float(sigma))
        for layer, value, sigma in zip(absent, ms, rel_sigma, strict=True)
    ]
    return (*measured, *filled)


def common_rel_sigma(rows: Sequence[TableRow], networks: Sequence[Sequence[LayerSpec]]) -> float:
    """Returns what interpolated rows add to a network's relative error beyond their own, as they err alike.

    Args:
        rows: All rows of a table.
        networks: Plans of its space, for which the root mean square is taken.
    """
    measured = [row for row in rows if row.status != INTERPOLATED]
    filled = [row for row in rows if row.status == INTERPOLATED]
    if not filled or not networks:
        return 0.0
    model = fit_fill([row.layer for row in measured], [row.p50 for row in measured])
    covariance = model.covariance([row.layer for row in filled])
    place = {row.layer.key: i for i, row in enumerate(filled)}
    ms_of = {row.layer.key: row.p50 for row in rows}
    own = np.array([row.rel_sigma**2 for row in filled])
    shares = []
    for layers in networks:
        weights = np.zeros(len(filled))
        for layer in layers:
            if (i := place.get(layer.key)) is not None:
                weights[i] += ms_of[layer.key]
        total = sum(ms_of[layer.key] for layer in layers)
        shares.append(max(0.0, float(weights @ covariance @ weights - (weights**2 * own).sum())) / total**2)
    return float(np.sqrt(np.mean(shares)))


def _terms(layers: Sequence[LayerSpec]) -> Floats:
    return np.stack([block_terms(layer) for layer in layers])


def block_features(layers: Sequence[LayerSpec]) -> Floats:
    """Returns what the process tells blocks apart by: shape (n, f); the last feature is the kind of block."""
    kinds = ("first_conv", "mbconv", "mbpool")
    return np.array(
        [
            [
                *np.log2([layer.hw_out, layer.in_chs, layer.mid_chs, layer.out_chs]),
                layer.kernel_size / 2,
                layer.stride,
                layer.se_chs > 0,
                "conv" in layer.shortcut,
                "pool" in layer.shortcut,
                *(chs % _VECTOR > 0 for chs in (layer.in_chs, layer.mid_chs, layer.out_chs)),
                kinds.index(layer.op),
            ]
            for layer in layers
        ],
        dtype=np.float64,
    )


def _tune(features: Floats, rest: Floats) -> Kernel:
    """Climbs to the most probable lengths, amplitude and noise, one at a time."""
    kernel = Kernel(lengths=LENGTHS, amplitude=max(float(rest.std()), 0.02), noise=_NOISE)
    best = _loss(kernel, features, rest)
    for _ in range(_ROUNDS):
        for changed in [*range(len(LENGTHS)), "amplitude", "noise"]:
            for step in _STEPS:
                tried = _stepped(kernel, changed, step)
                if (loss := _loss(tried, features, rest)) < best - 1e-6:
                    best, kernel = loss, tried
    return kernel


def _stepped(kernel: Kernel, changed: int | str, step: float) -> Kernel:
    if changed == "amplitude":
        return replace(kernel, amplitude=kernel.amplitude * step)
    if changed == "noise":
        return replace(kernel, noise=max(_LEAST_NOISE, kernel.noise * step))
    lengths = kernel.lengths.copy()
    lengths[int(changed)] *= step
    return replace(kernel, lengths=lengths)


def _loss(kernel: Kernel, features: Floats, rest: Floats) -> float:
    """Negative logarithm of the probability, up to a constant."""
    factor = np.linalg.cholesky(kernel.between(features, features) + kernel.noise**2 * np.eye(len(rest)))
    white = np.linalg.solve(factor, rest)
    prior = (np.log(kernel.lengths / LENGTHS) ** 2).sum() / (2 * _STIFFNESS**2)
    prior += np.log(kernel.noise / _NOISE) ** 2 / 2
    return float(0.5 * white @ white + np.log(np.diag(factor)).sum() + prior)

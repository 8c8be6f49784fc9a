"""Filling gaps: a non-negative roofline model, fitted to the measured rows of a table, for the rows that it lacks.

Each term is physical (launches, MACs by class, values moved), so no coefficient may be negative; the fit minimises
relative errors, and its own cross-validated error is the sigma of what it fills.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas2edge.latency.kernels import DEPTHWISE, kernels
from nas2edge.plan import LayerSpec

Floats = npt.NDArray[np.float64]

MIN_ROWS = 24
_FOLDS = 5
_REACH = 1.25  # how far beyond the largest measured value of a term the model may go
_FUSED = ("relu",)

PARTS = ("launches", "convolutions", "depthwise", "memory")
"""Parts of a block's time that differ from device to device."""

_PART_COLUMNS = ([0, 1, 9], [2, 3], [4, 5, 6], [7, 8])


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """A fitted model.

    Args:
        coefficients: Milliseconds per unit of each term.
        reach: Greatest value of each term that the model answers for.
        ops: Kinds of block (op, activation) that were in the fit.
        rel_sigma: Root mean square of the relative errors in cross-validation.
    """

    coefficients: Floats
    reach: Floats
    ops: frozenset[tuple[str, str]]
    rel_sigma: float

    def layer_ms(self, layer: LayerSpec) -> float | None:
        """Returns the modelled time of a block, or None if the block is unlike all that were fitted."""
        terms = block_terms(layer)
        if (layer.op, layer.act) not in self.ops or bool((terms > self.reach).any()):
            return None
        return float(terms @ self.coefficients)


def fit_roofline(layers: Sequence[LayerSpec], ms: Sequence[float]) -> Roofline | None:
    """Fits the model to measured blocks; None if they are fewer than 24, too few to trust."""
    if len(layers) < MIN_ROWS:
        return None
    terms, target = np.stack([block_terms(layer) for layer in layers]), np.asarray(ms, dtype=np.float64)
    fold = np.random.default_rng(0).permutation(len(layers)) % _FOLDS
    errors = np.concatenate(
        [
            terms[fold == i] @ fit_terms(terms[fold != i], target[fold != i]) / target[fold == i] - 1
            for i in range(_FOLDS)
        ]
    )
    return Roofline(
        coefficients=fit_terms(terms, target),
        reach=terms.max(axis=0) * _REACH,
        ops=frozenset((layer.op, layer.act) for layer in layers),
        rel_sigma=float(np.sqrt(np.mean(errors**2))),
    )


def robust_fit_ms(layers: Sequence[LayerSpec], ms: Sequence[float]) -> Floats:
    """Returns what a roofline through most of the blocks says of each: rows beyond a factor of three are left out.

    Relative errors forgive what is far too slow, not what is far too fast, so the slow ones are looked for first.
    """
    terms, target = np.stack([block_terms(layer) for layer in layers]), np.asarray(ms, dtype=np.float64)
    # The first guess: all blocks at the median rate of the launches and MACs that they have.
    work = terms[:, 1] / np.median(terms[:, 1]) + terms[:, 2:6].sum(axis=1) / np.median(terms[:, 2:6].sum(axis=1))
    fitted = work * np.median(target / work)
    for reach in (10.0, 3.0, 3.0):
        kept = np.abs(np.log(target / fitted)) <= np.log(reach)
        if kept.sum() < 3:
            break
        fitted = np.maximum(terms @ fit_terms(terms[kept], target[kept]), 1e-9)
    return np.asarray(fitted, dtype=np.float64)


def part_shares(layers: Sequence[LayerSpec], ms: Sequence[float] | Floats) -> Floats:
    """Returns what share of each block's time each of `PARTS` has, by a roofline through all blocks: (m, 4)."""
    terms = np.stack([block_terms(layer) for layer in layers])
    contributions = terms * fit_terms(terms, np.asarray(ms, dtype=np.float64))
    parts = np.stack([contributions[:, columns].sum(axis=1) for columns in _PART_COLUMNS], axis=1)
    return np.asarray(parts / parts.sum(axis=1, keepdims=True), dtype=np.float64)


def solve_nonnegative(matrix: Floats, target: Floats) -> Floats:
    """Returns the x >= 0 that minimises |matrix x - target| (the active-set method of Lawson and Hanson).

    Args:
        matrix: Shape (m, n).
        target: Shape (m,).
    """
    n = matrix.shape[1]
    x, passive = np.zeros(n), np.zeros(n, dtype=bool)
    gradient = matrix.T @ target
    tolerance = 1e-10 * max(1.0, float(np.abs(gradient).max()))
    for _ in range(10 * n):  # ends by itself; the limit guards against cycling in rounding errors
        if passive.all() or gradient[~passive].max() <= tolerance:
            break
        passive[np.argmax(np.where(passive, -np.inf, gradient))] = True
        trial = _solve_on(matrix, target, passive)
        while (trial[passive] <= 0).any():
            shrinking = passive & (trial <= 0)
            step = float(np.min(x[shrinking] / (x[shrinking] - trial[shrinking] + 1e-300)))
            x = x + step * (trial - x)
            passive &= x > 1e-14
            x[~passive] = 0.0
            trial = _solve_on(matrix, target, passive)
        x = trial
        gradient = matrix.T @ (target - matrix @ x)
    return x


def _solve_on(matrix: Floats, target: Floats, columns: npt.NDArray[np.bool_]) -> Floats:
    x = np.zeros(matrix.shape[1])
    if columns.any():
        x[columns] = np.linalg.lstsq(matrix[:, columns], target, rcond=None)[0]
    return x


def fit_terms(terms: Floats, ms: Floats) -> Floats:
    """Returns the non-negative coefficients with the least squared relative errors.

    Args:
        terms: Shape (m, n).
        ms: Shape (m,).
    """
    scale = np.maximum(terms.max(axis=0), 1.0)
    coefficients: Floats = solve_nonnegative(terms / scale / ms[:, None], np.ones(len(ms))) / scale
    return coefficients


def block_terms(layer: LayerSpec) -> Floats:
    """Returns the terms of a block in physical units, of which the model takes a non-negative combination."""
    launches = kernels(layer, fused_acts=_FUSED)
    depthwise = [kernel for kernel in launches if kernel.kind == DEPTHWISE]
    dense = {op.name for op in layer.ops if op.kernel_size > 1 and op.groups == 1}
    small = layer.kernel_size <= 3
    return np.array(
        [
            1.0,
            len(launches),
            sum(kernel.macs for kernel in launches if kernel.kind != DEPTHWISE and kernel.name not in dense),
            sum(kernel.macs for kernel in launches if kernel.name in dense),
            sum(kernel.macs for kernel in depthwise if small),
            sum(kernel.macs for kernel in depthwise if not small),
            sum(kernel.written for kernel in depthwise),
            sum(kernel.read + kernel.written for kernel in launches),
            sum(kernel.weights for kernel in launches),
            float(layer.se_chs > 0),
        ],
        dtype=np.float64,
    )

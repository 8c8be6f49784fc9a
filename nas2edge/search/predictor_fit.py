"""Fitting of accuracy predictors: kinds of models compared by cross-validation, the best one kept.

Gradient boosting and the perceptron are scikit-learn's; ridge regression and the Gaussian process (`process_fit`) need
NumPy only. All predict in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nas2edge.additive import AdditiveMetric
from nas2edge.budget import BudgetSampler
from nas2edge.costs import count_macs
from nas2edge.errors import InputError
from nas2edge.optional import require
from nas2edge.search.predictor import (
    Array,
    Boosting,
    Features,
    Model,
    Perceptron,
    Predictor,
    Process,
    Ridge,
    Scores,
    quadratic,
)
from nas2edge.search.process_fit import fit_process, fit_process_like, with_errors_of
from nas2edge.space import Codes, SearchSpace
from nas2edge.stats import kendall_tau

FOLDS = 5
MIN_SAMPLES = 50
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_REPEATS = 4

Fit = Callable[[Array, Array, int], Model]
"""Fits features (n, f) to accuracies (n,), with a seed."""


def draw_samples(space: SearchSpace, n: int, *, seed: int) -> Codes:
    """Draws different sub-networks to fit on: both ends, half evenly over MACs, the rest uniformly.

    Returns fewer than n only if the space has fewer members.
    """
    rng = np.random.default_rng(seed)
    ends = space.encode([space.smallest(), space.largest()])
    budget = BudgetSampler(space, AdditiveMetric(space, count_macs), bins=16)
    codes = ends
    for _ in range(50):
        if len(codes) >= min(n, space.size):
            break
        missing = n - len(codes)
        bins = budget.draw_bins(-(-missing // 2), rng, uniform=True)
        even = [budget.draw(bin=bin, n=1, rng=rng) for bin in bins.tolist()]
        codes = np.concatenate([codes, *even, space.sample(missing // 2, rng)])
        _, first = np.unique(codes, axis=0, return_index=True)
        codes = codes[np.sort(first)]
    return codes[:n]


def fit_predictor(
    space: SearchSpace,
    codes: Codes,
    accuracies: npt.ArrayLike,
    *,
    supernet_sha256: str,
    images: int,
    data: str = "",
    kinds: Mapping[str, Fit] | None = None,
    seed: int = 0,
) -> Predictor:
    """Compares kinds of models by cross-validation and fits the best.

    Args:
        space: The space.
        codes: Evaluated sub-networks: shape (n, genes).
        accuracies: Of each, in percent.
        supernet_sha256: Of the weights.
        images: That they were evaluated on.
        data: Digest of these images.
        kinds: The kinds to compare; by default all that can be fitted here.
        seed: Of the folds and fits.

    Raises:
        InputError: There are too few samples.
    """
    target = np.asarray(accuracies, dtype=np.float64)
    if len(target) < MIN_SAMPLES:
        raise InputError(f"{len(target)} evaluated sub-networks are too few to fit a predictor; expected {MIN_SAMPLES}")
    features = Features(space)(codes)
    folds = np.random.default_rng(seed).permutation(len(target)) % FOLDS
    fitted: dict[str, tuple[Scores, tuple[Model, ...]]] = {}
    for kind, fit in (kinds or available_kinds()).items():
        models = tuple(fit(features[folds != i], target[folds != i], seed + i) for i in range(FOLDS))
        held_out = np.empty(len(target))
        for i, model in enumerate(models):
            held_out[folds == i] = model.predict(features[folds == i])
        fitted[kind] = (_scores(held_out, target), models)
        if isinstance(whole := fit(features, target, seed) if kind == Process.kind else None, Process):
            # One fit to all samples is better than a mean of fits to parts, and as it knows its errors, enough.
            excess = np.empty(len(target))
            for i, model in enumerate(models):
                if isinstance(model, Process):
                    excess[folds == i] = (held_out - target)[folds == i] / model.errors(features[folds == i])
            fitted[kind] = (fitted[kind][0], (with_errors_of(whole, excess),))
    best = min(fitted, key=lambda kind: fitted[kind][0].rmse)
    return Predictor(
        space=space,
        supernet_sha256=supernet_sha256,
        models=fitted[best][1],
        scores={kind: scores for kind, (scores, _) in fitted.items()},
        samples=len(target),
        images=images,
        data=data,
    )


def refit_predictor(predictor: Predictor, codes: Codes, accuracies: npt.ArrayLike) -> Predictor:
    """Fits a predictor of the same kind to more sub-networks of the same supernet, evaluated on the same images.

    Raises:
        MissingDependencyError: Its kind cannot be fitted here.
    """
    kinds = available_kinds()
    if isinstance(predictor.models[0], Process):
        kinds[Process.kind] = fit_process_like(predictor.models[0])
    if predictor.kind not in kinds:
        require("sklearn", extra="train", purpose=f"fitting a predictor of kind {predictor.kind!r} anew")
    return fit_predictor(
        predictor.space,
        codes,
        accuracies,
        supernet_sha256=predictor.supernet_sha256,
        images=predictor.images,
        data=predictor.data,
        kinds={predictor.kind: kinds[predictor.kind]},
    )


def available_kinds() -> dict[str, Fit]:
    """Returns the kinds that can be fitted on this machine: two always, the others with scikit-learn."""
    import importlib.util

    kinds: dict[str, Fit] = {Ridge.kind: fit_ridge, Process.kind: fit_process}
    if importlib.util.find_spec("sklearn") is not None:
        kinds |= {Boosting.kind: fit_boosting, Perceptron.kind: fit_perceptron}
    return kinds


def fit_ridge(features: Array, target: Array, seed: int) -> Ridge:
    """Fits quadratic ridge regression; the penalty is the one with the least generalised cross-validation error."""
    design = quadratic(features)
    centre, offset = design[:, 1:].mean(axis=0), target.mean()
    u, s, vt = np.linalg.svd(design[:, 1:] - centre, full_matrices=False)
    projected = u.T @ (target - offset)

    def solve(penalty: float) -> tuple[float, Array]:
        shrink = s**2 / (s**2 + penalty)
        residual = (target - offset) - u @ (shrink * projected)
        freedom = len(target) - 1 - shrink.sum()
        error = float((residual**2).sum() / max(freedom, 1.0) ** 2)
        return error, vt.T @ (s / (s**2 + penalty) * projected)

    slopes = min((solve(penalty) for penalty in _PENALTIES), key=lambda found: found[0])[1]
    return Ridge(np.concatenate([[offset - centre @ slopes], slopes]))


def fit_boosting(features: Array, target: Array, seed: int) -> Boosting:
    """Fits gradient-boosted regression trees (Friedman 2001)."""
    from sklearn.ensemble import GradientBoostingRegressor

    fitted = GradientBoostingRegressor(
        n_estimators=400, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=seed
    ).fit(features, target)
    trees = [stage[0].tree_ for stage in fitted.estimators_]
    sizes = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    shift = np.repeat(roots, sizes)
    feature = joined("feature").astype(np.int64)
    return Boosting(
        feature=np.where(feature >= 0, feature, -1),
        threshold=joined("threshold").astype(np.float64),
        left=joined("children_left").astype(np.int64) + shift,
        right=joined("children_right").astype(np.int64) + shift,
        value=fitted.learning_rate * np.concatenate([tree.value[:, 0, 0] for tree in trees]),
        roots=roots.astype(np.int64),
        base=np.array([float(fitted.init_.constant_[0, 0])]),
    )


def fit_perceptron(features: Array, target: Array, seed: int) -> Perceptron:
    """Fits a perceptron with two hidden layers of 64 units, by Adam with early stopping."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    offset, scale = target.mean(), target.std() or 1.0
    regressor = MLPRegressor(
        hidden_layer_sizes=(64, 64), alpha=1e-3, learning_rate_init=3e-3, max_iter=600, batch_size=32, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regressor.fit(features, (target - offset) / scale)
    weights = [np.asarray(weight, dtype=np.float64) for weight in regressor.coefs_]
    biases = [np.asarray(bias, dtype=np.float64) for bias in regressor.intercepts_]
    weights[-1], biases[-1] = weights[-1] * scale, biases[-1] * scale + offset
    return Perceptron(tuple(weights), tuple(biases))


def _scores(predicted: Array, target: Array) -> Scores:
    rmse = float(np.sqrt(((predicted - target) ** 2).mean()))
    return Scores(rmse=rmse, kendall_tau=kendall_tau(predicted, target))

"""Accuracy of sub-networks from a small model, fitted to sub-networks that a supernet was evaluated on.

A predictor is a Gaussian process, or a few fits of one other kind of model, each on another part of the samples, whose
mean it predicts. The process knows its error; that of the others has two parts: what cross-validation found, and how
far the fits disagree on this sub-network. Predicting needs NumPy only, and the file (safetensors, no pickle) names the
supernet by its hash, so that it cannot serve another.

>>> predictor = load_predictor(Path("predictor.safetensors"), space=space, supernet_sha256=sha256)  # doctest: +SKIP
>>> accuracies, sigmas = predictor.predict(codes)  # doctest: +SKIP
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count_macs, count_params
from nas2edge.errors import FormatError, InputError
from nas2edge.files import atomic_path, save_tensors
from nas2edge.space import Codes, SearchSpace

FORMAT, VERSION = "nas2edge.predictor", 2
KIND_NAMES = {"ridge": "ridge regression", "gp": "Gaussian process", "boosting": "boosted trees", "mlp": "perceptron"}
PREDICTOR_NAME = "predictor.safetensors"

_UNTHREADED = 200_000  # multiplications of a matrix product that OpenBLAS computes on one thread
_ANEW = "fit it anew: nas2edge predictor fit"

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How good a kind of model is at sub-networks that it was not fitted to (cross-validation).

    Args:
        rmse: Root mean square error, in points of top-1.
        kendall_tau: Rank correlation.
    """

    rmse: float
    kendall_tau: float


class Model(ABC):
    """A fitted regression from features (n, f) to accuracies (n,)."""

    kind: ClassVar[str]

    @abstractmethod
    def predict(self, features: Array) -> Array:
        """Returns accuracies (n,) of features (n, f)."""

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Returns what the model consists of."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Ridge(Model):
    """Linear in the features, their squares and their products.

    Args:
        weights: Shape (1 + f + f (f + 1) / 2,).
    """

    weights: Array
    kind = "ridge"

    def predict(self, features: Array) -> Array:
        """Returns accuracies (n,) of features (n, f)."""
        return quadratic(features) @ self.weights

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Returns what the model consists of."""
        return {"weights": self.weights}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Perceptron(Model):
    """Layers of affine maps with ReLU between them.

    Args:
        weights: Of each layer, shape (in, out).
        biases: Of each layer, shape (out,).
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    kind = "mlp"

    def predict(self, features: Array) -> Array:
        """Returns accuracies (n,) of features (n, f)."""
        x = features
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = (x if i == 0 else np.maximum(x, 0.0)) @ weight + bias
        return x[:, 0]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Returns what the model consists of."""
        named = {f"weight.{i}": weight for i, weight in enumerate(self.weights)}
        return named | {f"bias.{i}": bias for i, bias in enumerate(self.biases)}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Boosting(Model):
    """A sum of regression trees, all nodes in flat arrays.

    Args:
        feature: Feature that a node asks for; -1 at a leaf. Shape (nodes,), as all but `roots`.
        threshold: A value at most this goes left.
        left: Node to the left.
        right: Node to the right.
        value: What a leaf adds, learning rate included.
        roots: First node of each tree.
        base: What is predicted before any tree: shape (1,).
    """

    feature: npt.NDArray[np.int64]
    threshold: Array
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    value: Array
    roots: npt.NDArray[np.int64]
    base: Array
    kind = "boosting"

    def predict(self, features: Array) -> Array:
        """Returns accuracies (n,) of features (n, f)."""
        x = features.astype(np.float32)  # as the trees were grown
        total = np.full(len(x), float(self.base[0]))
        rows = np.arange(len(x))
        for root in self.roots.tolist():
            node = np.full(len(x), root, dtype=np.int64)
            while (inner := self.feature[node] >= 0).any():
                goes_left = x[rows, np.maximum(self.feature[node], 0)] <= self.threshold[node]
                node = np.where(inner, np.where(goes_left, self.left[node], self.right[node]), node)
            total += self.value[node]
        return total

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Returns what the model consists of."""
        names = ("feature", "threshold", "left", "right", "value", "roots", "base")
        return {name: getattr(self, name) for name in names}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Process(Model):
    """A Gaussian process with one length scale a feature (Rasmussen and Williams 2006, sections 2.2 and 5.1).

    Args:
        inputs: Features of the samples, each divided by its length scale: shape (n, f).
        scales: The length scales: shape (f,).
        weights: What each sample's kernel adds: shape (n,).
        settings: Mean, signal variance and noise variance of the accuracies, and what its standard errors must be
            multiplied by to agree with cross-validation: shape (4,).
    """

    inputs: Array
    scales: Array
    weights: Array
    settings: Array
    kind = "gp"

    def predict(self, features: Array) -> Array:
        """Returns accuracies (n,) of features (n, f)."""
        total = np.empty(len(features))
        scaled, halves = features / self.scales, 0.5 * (self.inputs**2).sum(axis=1)
        # A few rows at a time stay in the cache, and are too few for a matrix product to be spread over threads, which
        # costs more than it gains, and much more where other processes run.
        rows = max(1, _UNTHREADED // self.inputs.size)
        for start in range(0, len(features), rows):
            block = scaled[start : start + rows]
            kernel = block @ self.inputs.T
            kernel -= halves
            kernel -= 0.5 * (block**2).sum(axis=1)[:, None]
            total[start : start + rows] = np.exp(kernel, out=kernel) @ self.weights
        return np.asarray(self.settings[0] + self.settings[1] * total)

    def errors(self, features: Array) -> Array:
        """Returns one-sigma errors (n,) of what an evaluation would give, in points."""
        _, signal, noise, factor = self.settings
        between = signal * gaussian(features / self.scales, self.inputs)
        kernel = signal * gaussian(self.inputs, self.inputs) + noise * np.eye(len(self.inputs))
        known = (between * np.linalg.solve(kernel, between.T).T).sum(axis=1)
        return np.asarray(factor * np.sqrt(np.maximum(signal - known, 0.0) + noise))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Returns what the model consists of."""
        return {name: getattr(self, name) for name in ("inputs", "scales", "weights", "settings")}


@final
class Features:
    """What models see of a sub-network: its genes that vary, scaled to 0..1, and the logarithms of MACs and parameters.

    Args:
        space: The space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._varies = np.flatnonzero(space.cardinalities > 1)
        self._scale = (space.cardinalities - 1)[self._varies]
        self._costs = [AdditiveMetric(space, cost) for cost in (count_macs, count_params)]
        extremes = [(np.log(cost.minimum().value), np.log(cost.maximum().value)) for cost in self._costs]
        self._ranges = [(low, max(high - low, 1e-9)) for low, high in extremes]

    def __call__(self, codes: Codes) -> Array:
        """Returns the features (n, f) of a population (n, genes)."""
        genes = codes[:, self._varies] / self._scale
        costs = [
            (np.log(cost(codes)) - low) / span for cost, (low, span) in zip(self._costs, self._ranges, strict=True)
        ]
        return np.column_stack([genes, *costs])


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A function from populations to accuracies and their errors.

    Args:
        space: The space.
        supernet_sha256: Of the weights that the samples were evaluated with.
        models: Fits of one kind on different parts of the samples; one `Process`, on all.
        scores: Of every kind that was compared; this one's is the best.
        samples: Sub-networks that were evaluated.
        images: Validation images that they were evaluated on.
        data: Digest of these images, and of those that recalibrate (`cache.digest_of_images`).
    """

    space: SearchSpace
    supernet_sha256: str
    models: tuple[Model, ...]
    scores: Mapping[str, Scores]
    samples: int
    images: int
    data: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "_features", Features(self.space))

    @property
    def kind(self) -> str:
        """Kind of its models."""
        return self.models[0].kind

    @property
    def rmse(self) -> float:
        """Cross-validated root mean square error, in points."""
        return self.scores[self.kind].rmse

    def __call__(self, codes: Codes) -> Array:
        """Returns the accuracies (n,) of a population, in percent."""
        features: Array = self._features(codes)  # type: ignore[attr-defined]
        return np.asarray(np.mean([model.predict(features) for model in self.models], axis=0))

    def predict(self, codes: Codes) -> tuple[Array, Array]:
        """Returns the accuracies (n,) of a population, in percent, and their one-sigma errors (n,) in points.

        The errors are those against an evaluation on the images, whose own noise they include.
        """
        features: Array = self._features(codes)  # type: ignore[attr-defined]
        if isinstance(model := self.models[0], Process):
            return model.predict(features), model.errors(features)
        each = np.stack([model.predict(features) for model in self.models])
        return each.mean(axis=0), np.sqrt(self.rmse**2 + each.var(axis=0))


def gaussian(a: Array, b: Array) -> Array:
    """Returns exp(-|x - y|^2 / 2) of all pairs of rows: shapes (n, f) and (m, f) to (n, m)."""
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * (a @ b.T)
    np.maximum(squared, 0.0, out=squared)
    squared *= -0.5
    return np.asarray(np.exp(squared, out=squared))


def quadratic(features: Array) -> Array:
    """Returns 1, the features, and all their products: shape (n, 1 + f + f (f + 1) / 2)."""
    n, f = features.shape
    i, j = np.triu_indices(f)
    return np.concatenate([np.ones((n, 1)), features, features[:, i] * features[:, j]], axis=1)


def save_predictor(path: Path, predictor: Predictor) -> None:
    """Writes a predictor in one step.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    arrays = {
        f"{i}.{name}": np.ascontiguousarray(array)
        for i, model in enumerate(predictor.models)
        for name, array in model.arrays().items()
    }
    notes = {
        "format": FORMAT,
        "version": VERSION,
        "kind": predictor.kind,
        "models": len(predictor.models),
        "space": predictor.space.digest,
        "supernet_sha256": predictor.supernet_sha256,
        "scores": {kind: asdict(scores) for kind, scores in predictor.scores.items()},
        "samples": predictor.samples,
        "images": predictor.images,
        "data": predictor.data,
    }
    with atomic_path(path) as part:
        save_tensors(part, arrays, metadata={"nas2edge": json.dumps(notes)}, library="numpy")


def load_predictor(path: Path, *, space: SearchSpace, supernet_sha256: str | None) -> Predictor:
    """Reads a predictor, and checks that it is of this space and these weights (None: of any).

    Raises:
        FormatError: The file is unreadable or no predictor of this version.
        InputError: It was fitted for another space or another supernet.
    """
    notes, arrays = _read(path)
    if notes["space"] != space.digest:
        raise InputError(f"{path} was fitted for another space than {space.name!r}; {_ANEW}")
    if supernet_sha256 is not None and notes["supernet_sha256"] != supernet_sha256:
        raise InputError(
            f"{path} was fitted for other weights (sha256 {notes['supernet_sha256'][:12]}..., expected "
            f"{supernet_sha256[:12]}...); {_ANEW}"
        )
    try:
        return Predictor(
            space=space,
            supernet_sha256=notes["supernet_sha256"],
            models=tuple(_model(notes["kind"], arrays, f"{i}.") for i in range(notes["models"])),
            scores={kind: Scores(**raw) for kind, raw in notes["scores"].items()},
            samples=notes["samples"],
            images=notes["images"],
            data=notes["data"],
        )
    except (KeyError, TypeError, AttributeError) as err:
        raise FormatError(f"{path} is incomplete ({err!r}); {_ANEW}") from err


def _read(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            notes = json.loads((file.metadata() or {}).get("nas2edge", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError, json.JSONDecodeError) as err:
        raise FormatError(f"{path} is not a readable safetensors file: {err}") from err
    if notes.get("format") != FORMAT or notes.get("version") != VERSION:
        raise FormatError(f"{path} is no predictor of this version; {_ANEW}")
    return notes, arrays


def _model(kind: str, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Model:
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if kind == Ridge.kind:
        return Ridge(own["weights"])
    if kind == Perceptron.kind:
        n = sum(name.startswith("weight.") for name in own)
        return Perceptron(_numbered(own, "weight", n), _numbered(own, "bias", n))
    if kind == Boosting.kind:
        return Boosting(**own)
    if kind == Process.kind:
        return Process(**own)
    raise FormatError(f"a predictor of kind {kind!r} is unknown to this version of nas2edge")


def _numbered(arrays: Mapping[str, Array], name: str, n: int) -> tuple[Array, ...]:
    found: Sequence[Array] = [arrays[f"{name}.{i}"] for i in range(n)]
    return tuple(found)

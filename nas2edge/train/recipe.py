"""What a training run does: one frozen record, read from a TOML file; the papers' own are named.

>>> load_recipe("alphanet").distillation
'adaptive-alpha'
>>> load_recipe("my_recipe.toml")  # doctest: +SKIP

Recipes are flat TOML files (format "nas2edge.recipe", version 1) that set some fields of `Recipe`; "extends" names the
recipe that gives the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from nas2edge.errors import FormatError, InputError, UnknownNameError
from nas2edge.files import read_document

FORMAT, VERSION = "nas2edge.recipe", 1
DEFAULT_RECIPE = "bignas-small"

_CHOICES = {
    "choose": ("random", "best", "worst"),
    "prior": ("share", "even"),
    "distillation": ("none", "kd", "alpha", "adaptive-alpha"),
    "decay": ("all", "largest"),
    "schedule": ("cosine", "exponential"),
    "augmentation": ("flip-crop", "resized-crop"),
    "precision": ("float32", "bfloat16"),
}
_AT_LEAST = {
    "epochs": 1,
    "batch_size": 2,
    "random_subnets": 0,
    "candidates": 1,
    "bins": 1,
    "crop_padding": 0,
    "warmup_epochs": 0,
    "weight_decay": 0,
    "floor": 0,
    "seed": 0,
}
_POSITIVE = ("learning_rate_per_256", "clip_value", "temperature", "clip_ratio")
_BELOW_ONE = ("label_smoothing", "dropout", "drop_connect", "momentum", "floor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of a training run.

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step, over all processes.
        learning_rate_per_256: Peak learning rate for a batch of 256 images; scaled linearly to the batch size.
        warmup_epochs: Epochs of linear warm-up, multiplied with the schedule.
        schedule: "cosine" to zero over all steps, or "exponential" with a constant floor (BigNAS).
        floor: Share of the peak rate at which the exponential schedule stays.
        momentum: Of SGD with Nesterov's correction.
        weight_decay: On convolution and linear weights, not on normalisation or biases.
        decay: "all" weights, or only those that the "largest" sub-network uses (BigNAS).
        sync_batch_norm: Whether several processes normalise by the statistics of all their images together.
        clip_value: Greatest absolute value of a gradient entry.
        random_subnets: Sub-networks a step besides the largest and the smallest.
        choose: How these are chosen: "random", or the "best" or "worst" of some candidates (AttentiveNAS).
        candidates: Candidates for each of them.
        prior: How their MACs are drawn for "best" and "worst": each bin by its "share" of the space, or all "even".
        bins: Bins of MACs.
        distillation: What they and the smallest learn from: "none" (the labels), "kd", "alpha" or "adaptive-alpha".
        beta: Weight of the teacher in "kd"; the labels have the rest.
        temperature: Of "kd".
        alpha: Of "alpha".
        alpha_min: The smaller alpha of "adaptive-alpha".
        alpha_max: The larger alpha of "adaptive-alpha".
        clip_ratio: Greatest importance ratio of the alpha-divergences.
        label_smoothing: Of the labels, for whoever learns from them.
        dropout: Before the classifier of the largest sub-network.
        drop_connect: At the last block of the largest sub-network, in its last two stages.
        augmentation: "flip-crop" of images held in memory, or "resized-crop" of files as they are read.
        crop_padding: Pixels of padding for flip-crop.
        auto_augment: Whether AutoAugment's ImageNet policy is applied to resized crops.
        precision: Of activations and products: "float32", or mixed with "bfloat16"; weights and losses stay in float32.
        seed: Of weights, order of images, augmentation and sub-networks drawn.

    Raises:
        InputError: A value is out of range.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate_per_256: float = 0.1
    warmup_epochs: float = 0.5
    schedule: str = "cosine"
    floor: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-5
    decay: str = "all"
    sync_batch_norm: bool = False
    clip_value: float = 1.0
    random_subnets: int = 2
    choose: str = "random"
    candidates: int = 3
    prior: str = "share"
    bins: int = 64
    distillation: str = "kd"
    beta: float = 0.9
    temperature: float = 1.0
    alpha: float = 1.0
    alpha_min: float = -1.0
    alpha_max: float = 1.0
    clip_ratio: float = 5.0
    label_smoothing: float = 0.1
    dropout: float = 0.0
    drop_connect: float = 0.0
    augmentation: str = "flip-crop"
    crop_padding: int = 4
    auto_augment: bool = False
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        for name, least in _AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        for name in _POSITIVE:
            if not getattr(self, name) > 0.0:
                raise InputError(f"{name} is {getattr(self, name)}; expected a positive number")
        for name in _BELOW_ONE:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 0 and less than 1")
        if not 0.0 <= self.beta <= 1.0:
            raise InputError(f"beta is {self.beta}; expected 0 to 1")
        if not self.alpha_min < self.alpha_max:
            raise InputError(f"alpha_min is {self.alpha_min}, alpha_max {self.alpha_max}; expected min below max")

    @property
    def learning_rate(self) -> float:
        """Peak learning rate at this batch size."""
        return self.learning_rate_per_256 * self.batch_size / 256


def recipe_names() -> tuple[str, ...]:
    """Returns the named recipes."""
    folder = resources.files("nas2edge.train").joinpath("recipes")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(name_or_path: str = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Returns a named recipe or one from a .toml file, with some fields set otherwise.

    Args:
        name_or_path: A name, or a path that ends in .toml.
        overrides: Fields of `Recipe` and their values; None leaves a field as it is.

    Raises:
        UnknownNameError: There is no such recipe, or no such field.
        FormatError: The file cannot be read, or a value is of the wrong type.
        InputError: A value is out of range.
    """
    recipe = _read(name_or_path, seen=())
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    return _apply(recipe, given, where="the command line")


def _read(name_or_path: str, *, seen: tuple[str, ...]) -> Recipe:
    if name_or_path in seen:
        raise FormatError(f"recipes extend each other in a circle: {' > '.join((*seen, name_or_path))}")
    raw = read_document(_path(name_or_path), format=FORMAT, version=VERSION)
    base = raw.pop("extends", None)
    recipe = Recipe() if base is None else _read(str(base), seen=(*seen, name_or_path))
    settings = {name: value for name, value in raw.items() if name not in ("format", "version", "about")}
    return _apply(recipe, settings, where=name_or_path)


def _path(name_or_path: str) -> Path:
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    if name_or_path not in recipe_names():
        raise UnknownNameError("recipe", name_or_path, recipe_names(), suffix=".toml")
    return Path(str(resources.files("nas2edge.train").joinpath("recipes", f"{name_or_path}.toml")))


def _apply(recipe: Recipe, settings: Mapping[str, Any], *, where: str) -> Recipe:
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in kinds:
            raise UnknownNameError("recipe field", name, kinds)
        kind = kinds[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise FormatError(f"{where}: {name} is {value!r}; expected a {kind.__name__}")
        values[name] = value
    return replace(recipe, **values)

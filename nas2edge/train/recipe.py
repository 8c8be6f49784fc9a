"""What a training run does, as one frozen record; it is written into the run and into the weights file."""

from __future__ import annotations

from dataclasses import dataclass

from nas2edge.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of a run: the sandwich rule with in-place distillation (BigNAS, section 3; AlphaNet, section 4).

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step.
        learning_rate: Peak, after warm-up.
        warmup_epochs: Epochs of linear warm-up; the cosine to zero runs over all steps and multiplies it.
        momentum: Of SGD with Nesterov's correction.
        weight_decay: On convolution and linear weights only, not on normalisation or biases.
        label_smoothing: For the largest sub-network, which alone learns from the labels.
        random_subnets: Sub-networks drawn a step besides the largest and the smallest.
        dropout: Before the classifier of the largest sub-network.
        drop_connect: In the last two stages of the largest sub-network.
        clip_value: Greatest absolute value of a gradient entry.
        crop_padding: Pixels of padding for the random crop.
        seed: Of weights, order of images, augmentation and sub-networks drawn.

    Raises:
        InputError: A value is out of range.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    warmup_epochs: float = 0.5
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    random_subnets: int = 2
    dropout: float = 0.0
    drop_connect: float = 0.0
    clip_value: float = 1.0
    crop_padding: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        at_least = {"epochs": 1, "batch_size": 2, "random_subnets": 0, "crop_padding": 0, "seed": 0, "warmup_epochs": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        for name in ("label_smoothing", "dropout", "drop_connect", "momentum"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 0 and less than 1")
        for name in ("learning_rate", "clip_value"):
            if not getattr(self, name) > 0.0:
                raise InputError(f"{name} is {getattr(self, name)}; expected a positive number")
        if self.weight_decay < 0.0:
            raise InputError(f"weight_decay is {self.weight_decay}; expected at least 0")

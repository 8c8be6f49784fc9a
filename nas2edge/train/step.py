"""One training step: the sandwich rule with in-place distillation.

The largest sub-network learns from the labels. Its logits, from that same pass, teach the others: sub-networks drawn at
random, and the smallest. Gradients of all passes add up to one update (BigNAS, section 3.1; AlphaNet's released code).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas2edge.space import SubnetConfig
from nas2edge.supernet.elastic import Supernet
from nas2edge.train.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLosses:
    """Losses of one step: cross-entropy of the largest, distillation of the smallest and of the drawn ones' mean."""

    largest: float
    random: float
    smallest: float


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of a student's logits (N, classes) against a teacher's probabilities, averaged over images.

    It differs from the Kullback-Leibler divergence by the teacher's entropy, which has no gradient here.
    """
    return -(teacher.detach().softmax(1) * student.log_softmax(1)).sum(1).mean()


def sandwich_step(
    model: Supernet, images: Tensor, labels: Tensor, *, drawn: Sequence[SubnetConfig], recipe: Recipe
) -> StepLosses:
    """Adds the gradients of one step to the supernet's parameters.

    Args:
        model: The supernet, in training mode.
        images: Normalised images (N, 3, H, H).
        labels: Class indices (N,).
        drawn: The random sub-networks of this step.
        recipe: Gives label smoothing, dropout and drop-connect.
    """
    space = model.space
    teacher = model(images, space.largest(), dropout=recipe.dropout, drop_connect=recipe.drop_connect)
    loss = F.cross_entropy(teacher, labels, label_smoothing=recipe.label_smoothing)
    torch.autograd.backward(loss)
    teacher = teacher.detach()
    student_losses = []
    for subnet in (*drawn, space.smallest()):
        student_loss = soft_cross_entropy(model(images, subnet), teacher)
        torch.autograd.backward(student_loss)
        student_losses.append(float(student_loss.detach()))
    *random, smallest = student_losses
    mean_random = sum(random) / len(random) if random else math.nan
    return StepLosses(largest=float(loss.detach()), random=mean_random, smallest=smallest)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Returns SGD with decay on convolution and linear weights only."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0.0)


def learning_rate(recipe: Recipe, *, step: int, steps_per_epoch: int) -> float:
    """Returns the rate of a step: linear warm-up times a cosine over all steps, to zero."""
    total = recipe.epochs * steps_per_epoch
    warmup = recipe.warmup_epochs * steps_per_epoch
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return recipe.learning_rate * factor * 0.5 * (1.0 + math.cos(math.pi * step / total))

"""The optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from nas2edge.plan import plan
from nas2edge.supernet.elastic import Supernet
from nas2edge.train.recipe import Recipe


def make_optimizer(model: Supernet, recipe: Recipe) -> torch.optim.SGD:
    """Returns SGD with Nesterov's momentum, and decay on convolution and linear weights only.

    BigNAS decays the largest sub-network only. Decay acts once a step on every weight either way, so the difference is
    just the shortcut convolutions that the largest never runs.
    """
    used = {f"{layer.name}.{op.name}.weight" for layer in plan(model.space, model.space.largest()) for op in layer.ops}
    decayed: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matters = recipe.decay == "all" or name in used
        (decayed if parameter.ndim > 1 and matters else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    nesterov = recipe.momentum > 0.0
    # Fused: one pass over the weights instead of five. It wants all momenta or none, though a first
    # gradient may come late; a momentum of zero becomes that gradient, as one that is not there yet does.
    optimizer = torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov, fused=True
    )
    if recipe.momentum:
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def clip_gradients(parameters: Iterable[torch.nn.Parameter], limit: float) -> None:
    """Clips every entry of the gradients to [-limit, limit]; what is not a number stays so."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if all(gradient.device.type == "cpu" for gradient in gradients):
        for gradient in gradients:
            gradient.clamp_(-limit, limit)  # one pass, where all together take two
    else:
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)


def learning_rate(recipe: Recipe, *, step: int, steps_per_epoch: int) -> float:
    """Returns the rate of a step, counted from 0: linear warm-up times the schedule.

    The cosine runs over all steps, warm-up included, to zero (AlphaNet). The exponential falls
    steadily towards 1 % of the peak at the end, and stays at its floor (BigNAS, section 3.2).
    """
    share = step / (recipe.epochs * steps_per_epoch)
    warmup = recipe.warmup_epochs * steps_per_epoch
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if recipe.schedule == "exponential":
        return recipe.learning_rate * factor * max(recipe.floor, math.exp(math.log(0.01) * share))
    return recipe.learning_rate * factor * 0.5 * (1.0 + math.cos(math.pi * share))

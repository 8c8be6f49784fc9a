"""One training step: the largest sub-network learns from labels, the others from a teacher; one update for all.

The teacher is the largest sub-network itself, by its logits of that same training pass, or a network from outside.
Gradients of all passes add up; they are neither averaged nor weighted (BigNAS, section 3.1; AlphaNet's released code).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas2edge.space import SubnetConfig
from nas2edge.supernet.elastic import Network, Supernet
from nas2edge.train.losses import AdaptiveAlpha, AlphaDivergence, HardLabels, KnowledgeDistillation, Loss
from nas2edge.train.processes import ALONE, Process, average
from nas2edge.train.recipe import Recipe
from nas2edge.train.recorded import Recorder
from nas2edge.train.sampling import Sampler, make_sampler

Teacher = Callable[[Tensor], Tensor]
"""Maps normalised images (N, 3, H, H) to logits (N, classes)."""
Predict = Callable[[SubnetConfig], float]
"""Maps a sub-network to its predicted accuracy: higher is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Which sub-networks a step trains, and what each learns from.

    Args:
        sampler: Chooses the sub-networks besides the largest and the smallest.
        largest: Loss of the largest.
        others: Loss of all others.
        dropout: Before the classifier of the largest.
        drop_connect: In the last two stages of the largest.
        teacher: A network from outside; None for the largest itself.
        predict: Predicts accuracies, to choose candidates by; None to choose by their loss on the batch.
        compiled: Sub-networks that were compiled.
        mixed: Whether networks run in bfloat16 where that is safe (automatic mixed precision).
        recorder: Records the largest and the smallest on a GPU; None where they cannot be.
    """

    sampler: Sampler
    largest: Loss
    others: Loss
    dropout: float = 0.0
    drop_connect: float = 0.0
    teacher: Teacher | None = None
    predict: Predict | None = None
    compiled: Mapping[SubnetConfig, Network] = field(default_factory=dict)
    mixed: bool = False
    recorder: Recorder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLosses:
    """Losses of one step: of the largest, of the smallest, and the mean of those between (NaN if there are none).

    Of a space with one member, the first two are the same.
    """

    largest: float
    random: float
    smallest: float


def make_strategy(
    model: Supernet,
    recipe: Recipe,
    *,
    teacher: Teacher | None = None,
    predict: Predict | None = None,
    backend: str | None = None,
    record: bool = False,
) -> Strategy:
    """Returns the strategy that a recipe asks for.

    Args:
        model: The supernet.
        recipe: The settings.
        teacher: A network to learn from instead of the largest sub-network.
        predict: Predicts accuracies.
        backend: Of `torch.compile`, for the largest and the smallest sub-network, which every step runs; None to
            compile nothing.
        record: Whether to record these two as CUDA graphs.
    """
    labels = HardLabels(smoothing=recipe.label_smoothing)
    losses: dict[str, Loss] = {
        "none": labels,
        "kd": KnowledgeDistillation(beta=recipe.beta, temperature=recipe.temperature, smoothing=recipe.label_smoothing),
        "alpha": AlphaDivergence(alpha=recipe.alpha, clip=recipe.clip_ratio),
        "adaptive-alpha": AdaptiveAlpha(alpha_min=recipe.alpha_min, alpha_max=recipe.alpha_max, clip=recipe.clip_ratio),
    }
    return Strategy(
        sampler=make_sampler(model.space, recipe),
        largest=labels,
        others=losses[recipe.distillation],
        dropout=recipe.dropout,
        drop_connect=recipe.drop_connect,
        teacher=teacher,
        predict=predict,
        compiled=_compile_ends(model, backend) if backend else {},
        mixed=recipe.precision == "bfloat16",
        recorder=Recorder(model) if record else None,
    )


def _compile_ends(model: Supernet, backend: str) -> dict[SubnetConfig, Network]:
    ends = (model.space.largest(), model.space.smallest())
    return {subnet: model.compile_network(subnet, backend=backend) for subnet in ends}


def add_gradients(
    model: Supernet,
    images: Tensor,
    labels: Tensor,
    *,
    strategy: Strategy,
    rng: np.random.Generator,
    process: Process = ALONE,
) -> StepLosses:
    """Adds the gradients of one step to the supernet's parameters.

    Args:
        model: The supernet, in training mode.
        images: Normalised images (N, 3, H, H).
        labels: Class indices (N,).
        strategy: What to train.
        rng: Chooses sub-networks; equal on all processes of a run.
        process: This process's part in a run of several.
    """

    def run(subnet: SubnetConfig, images: Tensor, **rates: float) -> Tensor:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=strategy.mixed):
            network: Network = strategy.compiled.get(subnet, partial(model, subnet=subnet))
            return network(images, **rates).to(images.dtype)

    def learn(subnet: SubnetConfig, loss: Loss, *inputs: Tensor, every_step: bool, **rates: float) -> list[Tensor]:
        """Adds a sub-network's gradients; the inputs are images, labels and perhaps a target."""

        def once(images: Tensor, labels: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
            logits = run(subnet, images, **rates)
            value = loss(logits, logits.detach() if target is None else target, labels).mean()
            torch.autograd.backward(value)
            return logits.detach(), value.detach()

        if every_step and strategy.recorder is not None:
            return list(strategy.recorder(subnet, once, *inputs))
        return list(once(*inputs))

    if strategy.recorder is not None:
        strategy.recorder.begin()
    space = model.space
    logits, largest = learn(
        space.largest(), strategy.largest, images, labels, every_step=True,
        dropout=strategy.dropout, drop_connect=strategy.drop_connect,
    )  # fmt: skip
    if space.size == 1:
        return StepLosses(largest=float(largest), random=math.nan, smallest=float(largest))
    target = logits if strategy.teacher is None else strategy.teacher(images).detach()

    def score(subnet: SubnetConfig) -> float:
        if strategy.predict is not None:
            return -strategy.predict(subnet)
        with torch.no_grad():
            return average(F.cross_entropy(run(subnet, images), labels), process)

    values = [largest]
    for subnet in strategy.sampler.draw(rng, score):
        values.append(learn(subnet, strategy.others, images, labels, target, every_step=False)[1])
    values.append(learn(space.smallest(), strategy.others, images, labels, target, every_step=True)[1])
    # Asked for once, after all of it was started: a GPU would be waited for each time.
    first, *between, last = torch.stack(values).tolist()
    return StepLosses(largest=first, random=sum(between) / len(between) if between else math.nan, smallest=last)

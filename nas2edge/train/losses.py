"""What a sub-network learns from its teacher: labels, softened targets, or alpha-divergences.

Every loss maps student logits, teacher logits and labels to one number per image, works in log space, and is finite,
with a finite gradient, for any finite logits. Letters as in the AlphaNet paper: p is the teacher's softmax, q the
student's, and t = p / q the importance ratio.

>>> loss = AdaptiveAlpha(alpha_min=-1.0, alpha_max=1.0, clip=5.0)
>>> loss(student_logits, teacher_logits, labels).mean().backward()
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-3
"""How near alpha must be to 0 or 1 to count as it."""


class Loss(ABC):
    """One loss per image of a student's logits."""

    @abstractmethod
    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Returns losses (N,) of student logits (N, classes), given teacher logits (N, classes) and labels (N,)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HardLabels(Loss):
    """Label-smoothed cross-entropy; the teacher is not heard.

    Args:
        smoothing: Probability spread evenly over all classes.
    """

    smoothing: float = 0.1

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(student, labels, label_smoothing=self.smoothing, reduction="none")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeDistillation(Loss):
    """(1 - beta) CE(labels) + beta T^2 KL(teacher, student), both softened by the temperature T (Hinton et al. 2015).

    With beta 1 and T 1 it is the soft-label loss of BigNAS and AttentiveNAS.

    Args:
        beta: Weight of the teacher.
        temperature: T.
        smoothing: Of the labels.
    """

    beta: float = 0.9
    temperature: float = 1.0
    smoothing: float = 0.0

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        t = self.temperature
        log_p = (teacher.detach() / t).log_softmax(1)
        log_q = (student / t).log_softmax(1)
        soft = t * t * (log_p.exp() * (log_p - log_q)).sum(1)
        if self.beta == 1.0:
            return soft
        hard = F.cross_entropy(student, labels, label_smoothing=self.smoothing, reduction="none")
        return (1.0 - self.beta) * hard + self.beta * soft


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaDivergence(Loss):
    """The surrogate of AlphaNet for a fixed alpha, whose gradient is that of the clipped alpha-divergence.

    Its value is no divergence and may be negative (AlphaNet, section 4, and its released code). Alpha 1 is the
    Kullback-Leibler divergence from the teacher, alpha 0 the reverse one; the ratio is not clipped at alpha 1.

    Args:
        alpha: Order of the divergence.
        clip: Greatest value of t^alpha (of t at alpha 0).
    """

    alpha: float
    clip: float = 5.0

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return alpha_divergence(student, teacher, alpha=self.alpha, clip=self.clip)[1]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveAlpha(Loss):
    """AlphaNet's choice: for each image, the one of two alphas whose divergence is larger (section 4.2).

    A negative alpha punishes a student that is too sure, a positive one a student that is too unsure.

    Args:
        alpha_min: The smaller alpha.
        alpha_max: The larger alpha; ties go to it.
        clip: Greatest value of t^alpha.
    """

    alpha_min: float = -1.0
    alpha_max: float = 1.0
    clip: float = 5.0

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        low, low_surrogate = alpha_divergence(student, teacher, alpha=self.alpha_min, clip=self.clip)
        high, high_surrogate = alpha_divergence(student, teacher, alpha=self.alpha_max, clip=self.clip)
        return torch.where(low > high, low_surrogate, high_surrogate)


def alpha_divergence(student: Tensor, teacher: Tensor, *, alpha: float, clip: float) -> tuple[Tensor, Tensor]:
    """Returns, per image, the clipped alpha-divergence of the student from the teacher, and the surrogate to minimise.

    Args:
        student: Logits (N, classes).
        teacher: Logits (N, classes); they get no gradient.
        alpha: Order of the divergence.
        clip: Greatest value of t^alpha (of t at alpha 0; unused at alpha 1).

    Returns:
        The divergence (N,), detached, and the surrogate (N,).
    """
    log_q = student.log_softmax(1)
    with torch.no_grad():
        log_p = teacher.log_softmax(1)
        divergence, weight = _divergence_and_weight(log_p, log_q.detach(), alpha, clip)
    return divergence, -(weight * log_q).sum(1)


def _divergence_and_weight(log_p: Tensor, log_q: Tensor, alpha: float, clip: float) -> tuple[Tensor, Tensor]:
    """Returns the divergence (N,) and the weight of each class (N, classes) in the surrogate."""
    log_t = log_p - log_q
    q = log_q.exp()
    if abs(alpha - 1.0) < _EPS:
        p = log_p.exp()
        return (p * log_t).sum(1), p
    if abs(alpha) < _EPS:
        log_t = log_t.clamp(max=math.log(clip))
        return -(q * log_t).sum(1), q * (log_t - 1.0)
    power = (alpha * log_t).clamp(max=math.log(clip)).exp()
    scale = 1.0 / (alpha * (alpha - 1.0))
    return scale * (q * (power - 1.0)).sum(1), q * (power / alpha + scale)

"""Losses: agreement with AlphaNet's original code, gradients, and finiteness where the original gives NaN."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nas2edge.train.losses import AdaptiveAlpha, AlphaDivergence, HardLabels, KnowledgeDistillation, alpha_divergence

REFERENCE = np.load(Path(__file__).parent / "data" / "alphanet_loss.npz")
LABELS = torch.from_numpy(REFERENCE["s__labels"])
ALPHAS = [-1.0, 0.0, 0.5, 1.0, 2.0]
LOSSES = [
    HardLabels(),
    KnowledgeDistillation(),
    KnowledgeDistillation(beta=0.5, temperature=4.0),
    KnowledgeDistillation(beta=1.0),
    AdaptiveAlpha(),
    *(AlphaDivergence(alpha=alpha, clip=clip) for alpha in (-2.0, *ALPHAS) for clip in (1.0, 5.0)),
]


def reference(name: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(REFERENCE[f"s__{name}"]))


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    return reference("student_logits").requires_grad_(), reference("teacher_logits")


@pytest.mark.parametrize("clip", [5, 1000])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_alpha_divergence_agrees_with_the_original(alpha, clip):
    student, teacher = logits()
    divergence, surrogate = alpha_divergence(student, teacher, alpha=alpha, clip=clip)
    surrogate.mean().backward()

    name = f"alpha{alpha:g}_clip{clip}"
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(divergence, reference(f"{name}__divergence"), **tolerance)
    torch.testing.assert_close(surrogate, reference(f"{name}__surrogate"), **tolerance)
    torch.testing.assert_close(student.grad, reference(f"{name}__grad_of_mean_surrogate"), **tolerance)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (AdaptiveAlpha(), "adaptive"),
        (HardLabels(smoothing=0.1), "ce_smooth0.1"),
    ],
    ids=["adaptive", "smoothed labels"],
)
def test_losses_agree_with_the_original(loss, name):
    student, teacher = logits()
    value = loss(student, teacher, LABELS).mean()
    value.backward()

    torch.testing.assert_close(value, reference(f"{name}__loss"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(student.grad, reference(f"{name}__grad"), rtol=1e-5, atol=1e-5)


def test_distillation_agrees_with_the_original_up_to_the_entropy_of_the_teacher():
    """The original's soft cross-entropy is KL(p, q) + H(p); the entropy has no gradient."""
    student, teacher = logits()
    value = KnowledgeDistillation(beta=1.0)(student, teacher, LABELS).mean()
    value.backward()

    p = teacher.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(value + entropy, reference("kd__loss"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(student.grad, reference("kd__grad"), rtol=1e-5, atol=1e-5)


def test_the_adaptive_choice_is_the_original_one():
    student, teacher = logits()
    low, _ = alpha_divergence(student, teacher, alpha=-1.0, clip=5.0)
    high, _ = alpha_divergence(student, teacher, alpha=1.0, clip=5.0)

    assert torch.equal(low > high, reference("adaptive__picked_alpha_min"))


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[1], LOSSES[2], LOSSES[3]], ids=str)
def test_gradients_of_true_losses_match_finite_differences(loss):
    student = reference("student_logits").double().requires_grad_()
    teacher = reference("teacher_logits").double()

    assert torch.autograd.gradcheck(lambda z: loss(z, teacher, LABELS), student)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_surrogate_has_the_gradient_of_the_unclipped_divergence(alpha):
    """Central differences of D_alpha itself, in float64, against the surrogate's gradient."""
    student = reference("student_logits").double()
    teacher = reference("teacher_logits").double()
    moved = student.clone().requires_grad_()
    alpha_divergence(moved, teacher, alpha=alpha, clip=1e30)[1].sum().backward()

    step = 1e-5
    numeric = torch.empty_like(student)
    for k in range(student.shape[1]):
        shift = torch.zeros_like(student)
        shift[:, k] = step
        above, _ = alpha_divergence(student + shift, teacher, alpha=alpha, clip=1e30)
        below, _ = alpha_divergence(student - shift, teacher, alpha=alpha, clip=1e30)
        numeric[:, k] = (above - below) / (2 * step)
    torch.testing.assert_close(moved.grad, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [200.0, 1e4, 1e30])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_opposite_certainties_give_finite_losses_and_gradients(loss, scale):
    """Student and teacher each sure of another class: the original forms 0/0 here and returns NaN."""
    student = (torch.eye(10)[:4] * scale).requires_grad_()
    teacher = torch.eye(10)[4:8] * scale
    value = loss(student, teacher, torch.zeros(4, dtype=torch.int64))
    value.mean().backward()

    assert torch.isfinite(value).all()
    assert torch.isfinite(student.grad).all()


def test_distillation_by_hand():
    """Teacher (1/2, 1/2), student (3/4, 1/4), label 0, beta 0.9, T 1: 0.1 * -ln 3/4 + 0.9 * KL."""
    student = torch.tensor([[math.log(3.0), 0.0]])
    teacher = torch.zeros(1, 2)

    value = KnowledgeDistillation(beta=0.9)(student, teacher, torch.tensor([0]))

    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(value) == pytest.approx(-0.1 * math.log(0.75) + 0.9 * divergence)


def test_temperature_softens_both_and_is_made_up_for_by_its_square():
    """T 2 on logits (2 ln 3, 0) is T 1 on (ln 3, 0), times 4."""
    student = torch.tensor([[2 * math.log(3.0), 0.0]])
    teacher, labels = torch.zeros(1, 2), torch.tensor([0])

    warm = KnowledgeDistillation(beta=1.0, temperature=2.0)(student, teacher, labels)
    cold = KnowledgeDistillation(beta=1.0)(student / 2, teacher, labels)

    assert float(warm) == pytest.approx(4 * float(cold))


def test_the_teacher_gets_no_gradient():
    for loss in LOSSES:
        student, teacher = logits()
        teacher.requires_grad_()
        loss(student, teacher, LABELS).sum().backward()

        assert teacher.grad is None

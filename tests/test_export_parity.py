"""Comparison of recorded outputs: equal, close, far, zero, infinite, not a number, half precision."""

import json
import math

import numpy as np
import pytest

from nas2edge.export.parity import EXACT, FLOAT16, FLOAT32, INT8, Tolerance, compare

BASE = np.array([[1.0, 2.0, -1.0], [0.5, -0.5, 4.0]], dtype=np.float32)


def test_equal_outputs_pass_even_exactly():
    report = compare(BASE, BASE.copy(), tolerance=EXACT)

    assert report.passed
    assert (report.max_abs, report.mean_abs, report.rel_l2, report.cosine) == (0.0, 0.0, 0.0, 1.0)
    assert (report.top1_agreement, report.not_finite, report.images) == (1.0, 0, 2)


def test_metrics_by_hand():
    reference = np.array([[3.0, 4.0]], dtype=np.float32)
    other = np.array([[3.0, 0.0]], dtype=np.float32)

    report = compare(reference, other, tolerance=FLOAT32)

    assert report.max_abs == 4.0
    assert report.mean_abs == 2.0
    assert report.rel_l2 == pytest.approx(4 / 5)
    assert report.cosine == pytest.approx(9 / (5 * 3))
    assert report.top1_agreement == 0.0
    assert report.scale == 4.0
    assert not report.passed


@pytest.mark.parametrize(
    ("other", "passes"),
    [
        pytest.param(BASE + 1e-5, True, id="rounding"),
        pytest.param(BASE.astype(np.float16).astype(np.float32), True, id="values that half precision holds"),
        pytest.param((BASE + np.float32(0.1)).astype(np.float16).astype(np.float32), False, id="moved"),
        pytest.param(BASE * 1.01, False, id="one percent"),
        pytest.param(BASE[:, ::-1].copy(), False, id="classes reversed"),
        pytest.param(BASE[::-1].copy(), False, id="images swapped"),
        pytest.param(np.zeros_like(BASE), False, id="all zero"),
        pytest.param(np.full_like(BASE, np.nan), False, id="nan"),
        pytest.param(np.where(BASE == 4.0, np.inf, BASE).astype(np.float32), False, id="one infinite"),
    ],
)
def test_what_passes_as_float32(other, passes):
    report = compare(BASE, other, tolerance=FLOAT32)

    assert report.passed is passes
    assert bool(report.explain()) is not passes
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_equal_but_not_finite_fails(value):
    bad = np.full_like(BASE, value)

    report = compare(bad, bad.copy(), tolerance=FLOAT32)

    assert report.not_finite == 12
    assert "12 values are not finite" in report.explain()


def test_zero_equals_zero():
    zeros = np.zeros((2, 3), dtype=np.float32)

    report = compare(zeros, zeros.copy(), tolerance=EXACT)

    assert report.passed
    assert (report.cosine, report.rel_l2) == (1.0, 0.0)


def test_something_from_a_zero_reference_fails():
    report = compare(np.zeros((1, 3), np.float32), np.full((1, 3), 1e-6, np.float32), tolerance=FLOAT32)

    assert math.isnan(report.cosine)
    assert not report.passed


def test_large_logits_are_judged_by_their_size():
    """A difference of 0.01 is beyond 1e-4, but not beyond 1e-4 of a logit of 1000."""
    reference = np.array([[1000.0, 1.0]], dtype=np.float32)

    assert compare(reference, reference + np.float32(0.01), tolerance=FLOAT32).passed


def test_disagreeing_predictions_are_explained():
    tolerance = Tolerance(max_abs=10.0, min_top1_agreement=0.9)

    three = np.concatenate([BASE, BASE[:1]])
    report = compare(three, np.roll(three, 1, axis=1), tolerance=tolerance)

    assert report.explain() == "0.00% of the predictions agree, 90.00% must"


def test_one_prediction_of_few_may_differ():
    """It may be a tie; two may not."""
    tolerance = Tolerance(max_abs=10.0, min_top1_agreement=0.995)
    four = np.concatenate([BASE, BASE])
    two = four.copy()
    two[:2] = np.roll(four[:2], 1, axis=1)

    assert not compare(four, np.roll(four, 1, axis=1), tolerance=tolerance).passed
    assert compare(four, np.concatenate([np.roll(four[:1], 1, axis=1), four[1:]]), tolerance=tolerance).passed
    assert not compare(four, two, tolerance=tolerance).passed


def test_other_shapes_are_a_bug_of_the_caller():
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(2, 2\) cannot be compared"):
        compare(BASE, BASE[:, :2], tolerance=FLOAT32)


def test_flips_and_their_margins_by_hand():
    """Of three images two flip: one by a lead of 0.5, one of 3; the median lead is that of the middle one."""
    reference = np.array([[2.0, 1.5, 0.0], [4.0, 0.0, 1.0], [0.0, 9.0, 1.0]], dtype=np.float32)
    other = np.array([[1.5, 2.0, 0.0], [1.0, 0.0, 4.0], [0.0, 9.0, 1.0]], dtype=np.float32)

    report = compare(reference, other, tolerance=INT8)

    assert report.flips == 2
    assert report.flip_margin == 3.0
    assert report.median_margin == 3.0
    assert report.top1_agreement == pytest.approx(1 / 3)
    assert report.top5_agreement == 1.0  # there are but three classes
    assert report.passed


def test_the_noise_in_decibels_by_hand():
    reference = np.array([[3.0, 4.0]], dtype=np.float32)

    report = compare(reference, np.array([[3.0, 4.5]], dtype=np.float32), tolerance=INT8)

    assert report.sqnr_db == pytest.approx(20.0)  # 5 against 0.5
    assert compare(reference, reference, tolerance=INT8).sqnr_db == math.inf


def test_the_best_five_by_hand():
    """The first image keeps four of its five best, the second all."""
    reference = np.array([[9, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7]], dtype=np.float32)
    other = reference.copy()
    other[0, 4], other[0, 6] = 3, 5

    assert compare(reference, other, tolerance=INT8).top5_agreement == pytest.approx(0.9)


def test_what_passes_as_float16():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((400, 10)).astype(np.float32)
    rounded = reference.astype(np.float16).astype(np.float32)
    flipped = reference.copy()
    flipped[:3] = flipped[:3, ::-1]

    assert compare(reference, rounded, tolerance=FLOAT16).passed
    assert not compare(reference, rounded, tolerance=EXACT).passed
    said = compare(reference, flipped, tolerance=FLOAT16).explain()
    assert "of the predictions agree, 99.50% must" in said
    assert "the least cosine is" in said

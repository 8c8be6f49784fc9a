"""Curves of training runs."""

from __future__ import annotations

from typing import Any

from nas2edge.report.curves import curves_of


def record(epoch: int, largest: float, smallest: float) -> dict[str, Any]:
    return {"epoch": epoch, "accuracy_largest": largest, "accuracy_smallest": smallest}


def test_values_that_are_missing_or_not_a_number_are_left_out() -> None:
    records = [record(1, 50.0, 40.0), record(2, 60.0, float("nan")), {"epoch": 3, "accuracy_largest": None}]
    assert curves_of(records, "accuracy") == {"largest": [(1, 50.0), (2, 60.0)], "smallest": [(1, 40.0)]}
    assert curves_of(records, "loss") == {}


def test_a_sub_network_trained_alone_is_one_curve() -> None:
    assert curves_of([record(1, 50.0, 50.0)], "accuracy") == {"sub-network": [(1, 50.0)]}

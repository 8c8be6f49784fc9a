"""The pytest plugin on a network of our own: the smallest of the embedded supernet's space, with weights at random."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.spaces import load_space

BASELINE = Path(__file__).parent / "data" / "gate" / "tiny-smallest.json"


@pytest.fixture
def smallest(tmp_path):
    space = load_space("tiny")
    layers = plan(space, space.smallest())
    path = tmp_path / "smallest.onnx"
    onnx.save(network_model(layers, random_weights(layers, np.random.default_rng(0))), path)
    return path


@pytest.mark.latency(gate="deterministic")
def test_the_smallest_network_costs_what_it_did(latency, smallest):
    latency(smallest, baseline=BASELINE)


@pytest.mark.slow
@pytest.mark.latency(gate="measured", max_slowdown="50%", budget="30s", inconclusive="pass")
def test_it_is_not_half_as_slow_again_as_itself(latency, smallest):
    report = latency(smallest, baseline=smallest)

    decision = report.gates[-1].decision
    assert decision is not None and len(decision.rounds) >= 1

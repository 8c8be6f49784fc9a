"""The laws of the estimated tables: what they may say, what they were fitted to, and how the fit works by hand."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas2edge import load_space, plan, unique_layers
from nas2edge.costs import count_macs
from nas2edge.errors import FormatError
from nas2edge.latency import list_tables, load_table
from nas2edge.latency.kernels import DENSE, DEPTHWISE, Kernel, KernelLaw, kernels
from nas2edge.latency.law import MAX_SHARE_OF_PEAK, ORIN_NANO_LAW
from tests.test_latency_law import BLOCK

ROOT = Path(__file__).parents[1]
LAW_ONLY = [entry.name for entry in list_tables() if entry.table and entry.table.law and not entry.table.rows]
CPUS = ["pixel-6", "raspberry-pi-4", "raspberry-pi-5"]
LAYERS = [layer for name in ("tiny", "attentivenas") for layer in unique_layers(load_space(name))]

# TensorRT FP16, 224 pixels, ms: Nota-NetsPresso/netspresso-trainer (Apache-2.0), of JetPack 4.6 to 6.0
PUBLISHED = {
    "jetson-nano": {"mobilenet_v3_large": 11.278, "mobilenet_v3_small": 5.0241, "resnet50": 29.2816},
    "jetson-tx2": {"mobilenet_v3_large": 4.96121, "mobilenet_v3_small": 3.64664, "resnet18": 4.18611},
    "jetson-xavier-nx": {"mobilenet_v3_large": 1.96175, "resnet50": 4.16903},
    "jetson-agx-xavier": {"mobilenet_v3_small": 1.00566, "resnet18": 1.10724, "resnet50": 2.83026},
    "jetson-orin-nano-15w": {"mobilenet_v3_small": 1.56278, "resnet18": 1.99792, "resnet50": 4.80201},
    "jetson-agx-orin": {"mobilenet_v3_small": 0.721624, "resnet34": 0.87017},
}


@pytest.fixture
def fitting(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("fit_laws")


@pytest.fixture
def networks(fitting):
    return importlib.import_module("published_networks").standard_networks()


def test_all_boards_of_the_issue_have_a_law():
    jetsons = ("nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano-7w", "orin-nano-15w", "orin-nano-25w", "orin-nx",
               "agx-orin")  # fmt: skip

    assert {*(f"jetson-{name}" for name in jetsons), *CPUS} == set(LAW_ONLY)


@pytest.mark.parametrize("name", LAW_ONLY)
def test_estimates_say_what_they_are_and_how_far_off(name):
    table = load_table(name)
    fit = table.protocol["fit"]

    estimate = table.estimate(plan(load_space("tiny"), load_space("tiny").smallest()))

    assert (table.kind, estimate.kind, estimate.measured_share) == ("estimated", "estimated", 0.0)
    assert table.rel_sigma == table.law.rel_sigma >= 0.15
    assert fit["median_error"] <= (0.15 if name in CPUS else 0.25)
    assert (ROOT / "latency_tables" / f"{name}.json").stat().st_size < 2500


@pytest.mark.parametrize("name", LAW_ONLY)
def test_no_block_is_faster_than_the_device_can_compute(name):
    law = load_table(name).law

    share = max(count_macs(layer) / law.layer_ms(layer) / 1e6 for layer in LAYERS) / law.peak_gmac_s

    assert share < MAX_SHARE_OF_PEAK


def test_faster_boards_and_modes_are_faster():
    largest = plan(load_space("attentivenas"), load_space("attentivenas").largest())
    ms = [load_table(f"jetson-{name}").estimate(largest).ms for name in
          ("nano", "tx2", "orin-nano-7w", "orin-nano-15w", "orin-nano-25w", "agx-orin")]  # fmt: skip

    assert ms == sorted(ms, reverse=True)
    assert load_table("raspberry-pi-5").estimate(largest).ms < load_table("raspberry-pi-4").estimate(largest).ms


def test_two_laws_of_one_board_from_different_figures_agree():
    """Kernel times of one network, against latencies of whole networks."""
    space = load_space("attentivenas")
    for subnet in (space.smallest(), space.largest()):
        by_kernels, by_networks = (load_table(name).estimate(plan(space, subnet)).ms
                                   for name in ("jetson-orin-nano", "jetson-orin-nano-15w"))  # fmt: skip
        assert by_networks == pytest.approx(by_kernels, rel=0.15)


@pytest.mark.parametrize(
    ("name", "macs"),
    [("resnet18", 1814), ("resnet50", 4089), ("mobilenet_v2", 301), ("mobilenet_v3_large", 217),
     ("mobilenet_v3_small", 57), ("mnasnet1_3", 526)],
)  # fmt: skip
def test_networks_have_the_macs_that_are_published_of_them(networks, name, macs):
    assert round(sum(kernel.macs for kernel in networks[name]) / 1e6) == macs


@pytest.mark.parametrize("board", PUBLISHED)
def test_laws_are_near_what_they_were_fitted_to(networks, board):
    law = load_table(board).law
    errors = [sum(map(law.kernel_ms, networks[name])) / ms - 1.0 for name, ms in PUBLISHED[board].items()]

    assert max(map(abs, errors)) < 2 * law.rel_sigma
    assert abs(np.median(errors)) < law.rel_sigma


def test_sigma_covers_a_further_network_with_68_percent(fitting):
    # of n errors the ceil(0.68 (n + 1))-th: of 9 the seventh, of 4 the last
    assert fitting.sigma_of([0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9]) == 0.7
    assert fitting.sigma_of([0.1, -0.4, 0.2, 0.3]) == 0.4


def test_fits_find_the_law_respect_floors_and_lean_on_the_prior(fitting):
    terms = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 2.0], [1.0, 0.5]])
    law = np.array([0.5, 2.0])
    other = np.array([0.0, 1.0, 0.0, 1.0])

    exact = fitting.solve(terms, terms @ law, floor=np.zeros(2))
    with_constant = fitting.solve(terms, terms @ law + 0.7 * other, floor=np.zeros(2), other=other)
    floored = fitting.solve(terms, terms @ law, floor=np.array([1.0, 0.0]))
    drawn = fitting.solve(terms, terms @ law, floor=np.zeros(2), prior=np.array([5.0, 5.0]), strength=100.0)

    assert exact == pytest.approx(law)
    assert with_constant == pytest.approx([0.5, 2.0, 0.7])
    assert floored[0] >= 1.0
    assert drawn == pytest.approx([5.0, 5.0], rel=0.01)


TOY = KernelLaw(name="toy", launch_us=10.0, bandwidth_gb_s=1.0, pointwise_gmac_s=1.0, depthwise_gmac_s=0.5,
                value_bytes=2, peak_gmac_s=4.0, fused_acts=("relu",), rel_sigma=0.2, source="a test")  # fmt: skip


def test_dense_convolutions_have_a_rate_of_their_own():
    dense = Kernel(name="conv", kind=DENSE, macs=1000)
    depthwise = Kernel(name="depthwise", kind=DEPTHWISE, macs=1000)

    assert TOY.kernel_ms(dense) == pytest.approx(0.011)
    assert replace(TOY, dense_gmac_s=4.0).kernel_ms(dense) == pytest.approx(0.01025)
    assert replace(TOY, dense_gmac_s=4.0).kernel_ms(depthwise) == pytest.approx(0.012)


def test_additions_and_activations_cost_what_the_law_says():
    block = replace(BLOCK, se_chs=0)
    plain, added = TOY.layer_ms(block), replace(TOY, fused_add=False).layer_ms(block)
    swish = replace(TOY, act_gvalue_s={"swish": 0.5}).layer_ms(block)

    # the addition reads twice and writes once 24 maps of 4 x 4; swish computes 64 maps of 8 x 8 and of 4 x 4
    assert kernels(block, fused_acts=("relu",), fused_add=False)[-1].name == "add"
    assert added - plain == pytest.approx(0.01 + 3 * 24 * 16 * 2e-6)
    assert swish - plain == pytest.approx((64 * 64 + 64 * 16) / 0.5e6)


def test_laws_survive_json_and_leave_defaults_out():
    law = replace(TOY, dense_gmac_s=4.0, fused_add=False, act_gvalue_s={"swish": 0.5})

    assert KernelLaw.from_dict(json.loads(json.dumps(law.to_dict()))) == law
    assert not {"dense_gmac_s", "fused_add", "act_gvalue_s"} & set(ORIN_NANO_LAW.to_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense_gmac_s": 5.0}, "law.dense_gmac_s is 5.0, above the device's peak 4.0"),
        ({"act_gvalue_s": {"swish": -1.0}}, "law.act_gvalue_s.swish is -1.0; expected a positive"),
        ({"act_gvalue_s": {"swish": "fast"}}, "law.act_gvalue_s.swish is 'fast'; expected a number"),
        ({"fused_add": 1}, "law.fused_add is 1; expected"),
        ({"launch_us": True}, "law.launch_us is True; expected"),
        ({"colour": 1}, "a law is an object with exactly the fields"),
    ],
)
def test_malformed_laws_are_refused(change, message):
    with pytest.raises(FormatError, match=message):
        KernelLaw.from_dict(TOY.to_dict() | change)

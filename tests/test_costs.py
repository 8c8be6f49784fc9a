"""Costs: hand-worked blocks, and all published records of the original counters."""

import json
from pathlib import Path

import pytest

from nas2edge.costs import count, count_macs, count_params, peak_activations
from nas2edge.plan import LayerSpec, plan
from nas2edge.space import SubnetConfig
from nas2edge.spaces import load_space

RECORDS = json.loads((Path(__file__).parent / "data" / "alphanet_costs.json").read_text())["records"]
GENES = ("resolution", "width", "depth", "kernel_size", "expand_ratio")


def mbconv(**changes):
    """16 channels to 24 on a map of 8, expanded to 32, kernel 3, no squeeze-and-excitation."""
    given = {
        "name": "b", "op": "mbconv", "hw_in": 8, "hw_out": 8, "in_chs": 16, "mid_chs": 32, "out_chs": 24,
        "kernel_size": 3, "stride": 1, "act": "swish", "shortcut": "conv",
    }  # fmt: skip
    return LayerSpec(**{**given, **changes})


@pytest.mark.parametrize("record", RECORDS, ids=[record["name"] for record in RECORDS])
def test_costs_are_those_of_the_original_counters(record):
    space = load_space("attentivenas")
    subnet = SubnetConfig.from_dict({gene: record[gene] for gene in GENES})

    costs = count(plan(space, subnet))

    assert (costs.macs, costs.params) == (record["macs_exact"], record["params_active"])


def test_a_stem_by_hand():
    stem = LayerSpec(
        name="stem", op="first_conv", hw_in=32, hw_out=16, in_chs=3, mid_chs=16, out_chs=16, kernel_size=3, stride=2,
        act="swish",
    )  # fmt: skip

    assert count_macs(stem) == 3 * 3 * 3 * 16 * 16 * 16
    assert count_params(stem) == 3 * 3 * 3 * 16 + 2 * 16


def test_a_block_by_hand():
    """Expansion, depthwise, projection, shortcut; two values a channel for each of three normalisations."""
    assert count_macs(mbconv()) == 64 * (16 * 32 + 9 * 32 + 32 * 24 + 16 * 24)
    assert count_params(mbconv()) == 16 * 32 + 9 * 32 + 32 * 24 + 16 * 24 + 2 * (32 + 32 + 24)


def test_a_block_without_expansion_and_with_an_identity_by_hand():
    block = mbconv(mid_chs=16, out_chs=16, shortcut="identity")

    assert count_macs(block) == 64 * (9 * 16 + 16 * 16)
    assert count_params(block) == 9 * 16 + 16 * 16 + 2 * (16 + 16)


def test_a_strided_block_by_hand():
    """Only the expansion sees the larger map; the pooled shortcut convolves the smaller."""
    block = mbconv(stride=2, hw_out=4, shortcut="pool+conv")

    assert count_macs(block) == 64 * 16 * 32 + 16 * (9 * 32 + 32 * 24 + 16 * 24)


def test_squeeze_and_excitation_by_hand():
    """32 channels to 8 and back, with biases, once an image."""
    assert count_macs(mbconv(se_chs=8)) - count_macs(mbconv()) == 2 * 32 * 8
    assert count_params(mbconv(se_chs=8)) - count_params(mbconv()) == 2 * 32 * 8 + 8 + 32


def test_a_head_by_hand():
    head = LayerSpec(
        name="head", op="mbpool", hw_in=4, hw_out=1, in_chs=16, mid_chs=96, out_chs=64, kernel_size=1, stride=1,
        act="swish", classes=10,
    )  # fmt: skip

    assert count_macs(head) == 16 * 16 * 96 + 96 * 64 + 64 * 10
    assert count_params(head) == 16 * 96 + 2 * 96 + 96 * 64 + 64 * 10 + 10


def test_peak_activations_by_hand():
    """Depthwise reads and writes 32 x 8 x 8 each, while the block's input, 16 x 8 x 8, waits for the addition."""
    assert peak_activations(mbconv()) == 64 * (32 + 32 + 16)


def test_the_shortcut_convolution_runs_while_the_projection_waits():
    """Without expansion that is the worst moment: 16 read, 24 written, 24 waiting for the addition."""
    assert peak_activations(mbconv(mid_chs=16)) == 64 * (16 + 24 + 24)


def test_what_reads_the_input_of_the_block_does_not_hold_it_twice():
    """Projecting, the worst moment: 16 read and 24 written on the map of 4, 16 waiting on that of 8 to be pooled."""
    block = mbconv(mid_chs=16, stride=2, hw_out=4, shortcut="pool+conv")

    assert peak_activations(block) == 16 * (16 + 24) + 64 * 16


def test_a_block_without_shortcut_holds_no_input():
    stem = LayerSpec(
        name="stem", op="first_conv", hw_in=32, hw_out=16, in_chs=3, mid_chs=16, out_chs=16, kernel_size=3, stride=2,
        act="swish",
    )  # fmt: skip

    assert peak_activations(stem) == 3 * 32 * 32 + 16 * 16 * 16


def test_a_whole_network_by_hand(tiny_space):
    """16 pixels: a stem to 8, one block without expansion, two strided and squeezed blocks to 4, a head."""
    costs = count(plan(tiny_space, tiny_space.smallest()))

    stem = 8 * 8 * (27 * 8)
    plain = 8 * 8 * (9 * 8 + 8 * 8)
    squeezed = 2 * 24 * 8  # 24 // 4 = 6 becomes 8
    strided = 8 * 8 * (8 * 24) + 4 * 4 * (9 * 24 + 24 * 8) + squeezed
    later = 4 * 4 * (8 * 24 + 9 * 24 + 24 * 8) + squeezed
    head = 4 * 4 * (8 * 16) + 16 * 16 + 16 * 3
    assert costs.macs == stem + plain + strided + later + head


def test_the_costs_of_a_plan_are_the_sum_and_the_greatest_of_its_layers():
    layers = [mbconv(), mbconv(in_chs=24, out_chs=24, shortcut="identity")]

    costs = count(layers)

    assert costs.macs == sum(map(count_macs, layers))
    assert costs.params == sum(map(count_params, layers))
    assert costs.peak_activations == max(map(peak_activations, layers))

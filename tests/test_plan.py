"""Plans: shapes worked out by hand, keys, and the blocks that a space can have."""

from collections import Counter
from dataclasses import replace

import pytest

from nas2edge.errors import SubnetError
from nas2edge.plan import plan, round_channels, stage_layers, unique_layers
from nas2edge.space import SearchSpace, StageSpace
from nas2edge.spaces import load_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """Two stages; 18 pixels become 9, then 5, an odd side rounded up."""
    return SearchSpace(
        name="two", image_size=18, resolution=(18,), num_classes=3, stem_width=(8,),
        stages=(
            StageSpace(width=(8,), depth=(1,), kernel_size=(3,), expand_ratio=(1,), stride=1, se=False),
            StageSpace(width=(16,), depth=(2,), kernel_size=(5,), expand_ratio=(3,), stride=2, se=True),
        ),
        head_width=(32,), head_expand_ratio=2,
    )  # fmt: skip


def test_a_plan_by_hand(space):
    """Squeezed channels are mid // 4 rounded to 8: 24 // 4 = 6 to 8, 48 // 4 = 12 to 16."""
    layers = plan(space, space.smallest())

    assert [layer.name for layer in layers] == ["stem", "stages.0.blocks.0", "stages.1.blocks.0", "stages.1.blocks.1",
                                                "head"]  # fmt: skip
    assert [layer.key for layer in layers] == [
        "first_conv hw=18 in=3 out=8 k=3 s=2 act=swish",
        "mbconv hw=9 in=8 mid=8 out=8 k=3 s=1 se=0 act=swish skip=identity",
        "mbconv hw=9 in=8 mid=24 out=16 k=5 s=2 se=8 act=swish skip=pool+conv",
        "mbconv hw=5 in=16 mid=48 out=16 k=5 s=1 se=16 act=swish skip=identity",
        "mbpool hw=5 in=16 mid=32 out=32 act=swish classes=3",
    ]


def test_the_ops_of_a_block_in_order(space):
    _, first, second, _, head = plan(space, space.smallest())

    assert [op.name for op in first.ops] == ["depthwise", "project"]
    assert [op.name for op in second.ops] == ["expand", "depthwise", "se_reduce", "se_expand", "project", "shortcut"]
    assert [op.name for op in head.ops] == ["expand", "mix", "classifier"]


def test_every_layer_takes_what_the_one_before_it_gives():
    space = load_space("attentivenas")
    layers = plan(space, space.largest())

    for before, after in zip(layers, layers[1:], strict=False):
        assert (before.out_chs, before.hw_out) == (after.in_chs, after.hw_in)


def test_the_blocks_of_attentivenas():
    """896 in all: 8 stems, 16 heads; 72 for the last stage, of which 8 are the stage's before it."""
    counts = Counter(layer.op for layer in unique_layers(load_space("attentivenas")))

    assert counts == {"first_conv": 8, "mbconv": 32 + 3 * 144 + 216 + 128 + 64, "mbpool": 16}


def test_the_blocks_of_attentivenas_by_stage():
    """Over 4 resolutions; in a stage: entering widths and widths x kernels x expansions, first block and later ones."""
    places = Counter(".".join(layer.name.split(".")[:2]) for layer in unique_layers(load_space("attentivenas")))

    assert places == {
        "stem": 4 * 2,
        "stages.0": 4 * 2 * (2 * 2 + 0),  # block 1 is 16 to 16 or 24 to 24, as block 0 can be
        "stages.1": 4 * 2 * 3 * (2 * 2 + 2),
        "stages.2": 4 * 2 * 3 * (2 * 2 + 2),
        "stages.3": 4 * 2 * 3 * (2 * 2 + 2),
        "stages.4": 4 * 2 * 3 * (2 * 3 + 3),
        "stages.5": 4 * 2 * 1 * (3 * 4 + 4),
        "stages.6": 4 * 2 * 1 * (4 * 2 + 1 - 1),  # 224 to 224 is new as a later block, 216 to 216 is of stage 5
        "head": 4 * 2 * 2,
    }
    assert sum(places.values()) == 896


@pytest.mark.parametrize(
    ("stage", "width", "shortcut", "hw_out"),
    [(0, 8, "identity", 9), (0, 16, "conv", 9), (1, 8, "pool", 5), (1, 16, "pool+conv", 5)],
)
def test_a_shortcut_pools_with_the_stride_and_convolves_when_the_width_changes(
    tiny_space, stage, width, shortcut, hw_out
):
    first, second = stage_layers(
        tiny_space, stage, hw_in=9, in_chs=8, width=width, depth=2, kernel_size=3, expand_ratio=3
    )

    assert (first.shortcut, first.hw_out, first.stride) == (shortcut, hw_out, stage + 1)
    assert (second.shortcut, second.hw_in, second.hw_out, second.in_chs) == ("identity", hw_out, hw_out, width)


def test_weights_have_the_shapes_of_torch(space):
    _, _, block, _, head = plan(space, space.smallest())

    assert {op.name: op.weight_shape for op in block.ops} == {
        "expand": (24, 8, 1, 1),
        "depthwise": (24, 1, 5, 5),
        "se_reduce": (8, 24, 1, 1),
        "se_expand": (24, 8, 1, 1),
        "project": (16, 24, 1, 1),
        "shortcut": (16, 8, 1, 1),
    }
    assert [op.weight_shape for op in head.ops] == [(32, 16, 1, 1), (32, 32, 1, 1), (3, 32)]


def test_the_activation_of_a_space_is_that_of_its_blocks_but_not_of_their_excitation(space):
    layers = plan(replace(space, act="relu"), space.smallest())

    acts = {op.name: op.act for layer in layers for op in layer.ops}
    assert acts == {
        "conv": "relu", "expand": "relu", "depthwise": "relu", "mix": "relu", "se_reduce": "relu",
        "se_expand": "hsigmoid", "project": "", "shortcut": "", "classifier": "",
    }  # fmt: skip
    assert "act=relu" in layers[0].key


@pytest.mark.parametrize("name", ["attentivenas", "tiny"])
def test_every_block_of_a_plan_is_among_the_blocks_of_its_space(name):
    import numpy as np

    space = load_space(name)
    known = {layer.key for layer in unique_layers(space)}

    for subnet in space.decode(space.sample(200, np.random.default_rng(0))):
        assert {layer.key for layer in plan(space, subnet)} <= known


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, 8), (8.5, 8), (11, 16), (12, 16), (50, 48), (53.9, 56), (200, 200), (9.5, 16)]
)
def test_channels_are_rounded_to_eights_but_not_by_more_than_a_tenth_down(channels, expected):
    assert round_channels(channels) == expected


def test_a_subnet_of_another_space_has_no_plan(space):
    with pytest.raises(SubnetError, match="width has 7 entries; space 'two' has 4"):
        plan(space, load_space("tiny").smallest())

"""Search spaces: members and their codes, drawing and changing them, and what is said of a wrong definition."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas2edge.errors import FormatError, SpaceError, SubnetError, UnknownNameError
from nas2edge.plan import plan
from nas2edge.space import SubnetConfig, space_from_dict
from nas2edge.spaces import SPACES, load_space

TINY = load_space("tiny")
NAMES = sorted(SPACES)


def test_the_size_of_attentivenas():
    """4 resolutions x 1536 widths x 6912 depths x 128 kernels x 81 expansions."""
    assert load_space("attentivenas").size == 4 * 1536 * 6912 * 128 * 81 == 440_301_256_704


def test_the_smallest_of_attentivenas_is_alphanet_a0():
    assert load_space("attentivenas").smallest() == SubnetConfig(
        resolution=192,
        width=(16, 16, 24, 32, 64, 112, 192, 216, 1792),
        depth=(1, 3, 3, 3, 3, 3, 1),
        kernel_size=(3,) * 7,
        expand_ratio=(1, 4, 4, 4, 4, 6, 6),
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_decode_is_the_inverse_of_encode(name, seed):
    space = load_space(name)
    codes = space.sample(5, np.random.default_rng(seed))

    assert np.array_equal(space.encode(space.decode(codes)), codes)


def test_an_empty_population_keeps_its_genes():
    assert TINY.encode([]).shape == (0, len(TINY.genes))
    assert TINY.decode(TINY.encode([])) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rate=st.floats(0, 1))
def test_a_mutation_stays_inside_the_space(seed, rate):
    rng = np.random.default_rng(seed)
    codes = TINY.sample(8, rng)

    mutated = TINY.mutate(codes, rng, rate=rate)

    assert ((mutated >= 0) & (mutated < TINY.cardinalities)).all()


def test_a_mutation_at_rate_one_changes_every_gene_that_has_a_choice():
    rng = np.random.default_rng(0)
    codes = TINY.sample(500, rng)

    changed = TINY.mutate(codes, rng, rate=1.0) != codes

    assert (changed == (TINY.cardinalities > 1)).all()
    assert np.array_equal(TINY.mutate(codes, rng, rate=0.0), codes)


def test_a_crossover_takes_every_gene_from_a_parent():
    rng = np.random.default_rng(0)
    a, b = TINY.sample(500, rng), TINY.sample(500, rng)

    child = TINY.crossover(a, b, rng)

    assert ((child == a) | (child == b)).all()
    assert 0.45 < (child == a)[a != b].mean() < 0.55


def test_equal_seeds_draw_equal_members():
    first, second = (TINY.sample(9, np.random.default_rng(3)) for _ in range(2))

    assert np.array_equal(first, second)


def test_equal_seeds_change_members_equally_and_leave_the_parents_alone(tiny_space, rng):
    a, b = tiny_space.sample(50, rng), tiny_space.sample(50, rng)
    before = a.copy(), b.copy()

    mutants = [tiny_space.mutate(a, np.random.default_rng(1), rate=0.5) for _ in range(2)]
    children = [tiny_space.crossover(a, b, np.random.default_rng(1)) for _ in range(2)]

    assert np.array_equal(*mutants)
    assert np.array_equal(*children)
    assert np.array_equal((a, b), before)


def test_a_mutation_changes_a_share_of_the_genes_that_is_the_rate():
    rng = np.random.default_rng(0)
    codes = TINY.sample(4000, rng)
    free = TINY.cardinalities > 1

    share = (TINY.mutate(codes, rng, rate=0.3) != codes)[:, free].mean()

    assert share == pytest.approx(0.3, abs=0.01)  # 4000 x 19 draws: a standard error of 0.0017


def test_every_choice_is_drawn_about_equally_often():
    codes = TINY.sample(6000, np.random.default_rng(0))

    for column, n in zip(codes.T, TINY.cardinalities, strict=True):
        assert np.bincount(column, minlength=n) == pytest.approx(6000 / n, rel=0.12)


def test_equal_subnets_have_equal_ids_and_hash_alike():
    a, b = TINY.smallest(), SubnetConfig.from_dict(json.loads(json.dumps(TINY.smallest().to_dict())))

    assert a == b
    assert a.id == b.id
    assert len({a, b}) == 1
    assert a.id != TINY.largest().id


def test_an_id_is_a_digest_of_sorted_json_without_spaces():
    subnet = SubnetConfig(resolution=16, width=(8, 8, 16), depth=(1,), kernel_size=(3,), expand_ratio=(2,))

    text = b'{"depth":[1],"expand_ratio":[2],"kernel_size":[3],"resolution":16,"width":[8,8,16]}'
    assert subnet.id == hashlib.sha256(text).hexdigest()[:12]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 33}, "resolution is 33, expected one of 24, 28, 32"),
        ({"depth": [1, 1, 9, 1, 1]}, "depth.2 is 9, expected one of 1, 2, 3"),
        ({"depth": [1, 1]}, "depth has 2 entries; space 'tiny' has 5"),
    ],
)
def test_a_subnet_outside_the_space_is_told_what_it_may_be(change, message):
    with pytest.raises(SubnetError, match=message):
        TINY.validate(SubnetConfig.from_dict({**TINY.smallest().to_dict(), **change}))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("r24", "a sub-network is an object with resolution"),
        ({"resolution": 24}, r"missing: \['width', 'depth'"),
        ({**TINY.smallest().to_dict(), "stride": [1]}, r"unknown: \['stride'\]"),
        ({**TINY.smallest().to_dict(), "depth": "11111"}, "'depth' is '11111'; expected a list of whole numbers"),
        ({**TINY.smallest().to_dict(), "resolution": 24.0}, "expected a list of whole numbers"),
        ({**TINY.smallest().to_dict(), "depth": [True] * 5}, "expected a list of whole numbers"),
    ],
)
def test_a_subnet_that_does_not_read_is_told(raw, message):
    with pytest.raises(SubnetError, match=message):
        SubnetConfig.from_dict(raw)


@pytest.mark.parametrize("name", NAMES)
def test_a_space_survives_json(name):
    space = load_space(name)

    again = space_from_dict(json.loads(json.dumps(space.to_dict())))

    assert again == space
    assert again.digest == space.digest


TOML = """
format = "nas2edge.space"
version = 1
name = "mine"
image_size = 32
resolution = [24, 32]
num_classes = 5
[stem]
width = [8, 16]
[[stage]]
width = [16, 24]
depth = [1, 2]
kernel_size = [3, 5]
expand_ratio = [3, 4]
stride = 2
se = true
[head]
width = [64]
expand_ratio = 4
"""


def test_a_space_is_read_from_toml(tmp_path):
    (tmp_path / "mine.toml").write_text(TOML)

    space = load_space(str(tmp_path / "mine.toml"))

    assert (space.name, space.num_classes, space.stem_stride, space.act) == ("mine", 5, 2, "swish")
    assert space.size == 2 * (2 * 2) * 2 * 2 * 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_classes = 5", "", r"missing: \['num_classes'\]"),
        ("num_classes = 5", "num_classes = 5\ncolour = 1", r"unknown: \['colour'\]"),
        ("num_classes = 5", "num_classes = 0", "num_classes is 0; expected a positive whole number"),
        ("num_classes = 5", 'num_classes = "5"', "num_classes is '5'; expected a whole number"),
        ("resolution = [24, 32]", "resolution = [32, 24]", r"resolution is \[32, 24\]; expected positive .* ascending"),
        ("resolution = [24, 32]", "resolution = []", r"resolution is \[\]; expected"),
        ("resolution = [24, 32]", "resolution = 32", "resolution is 32; expected a list of whole numbers"),
        ("width = [16, 24]", "width = [16, 20]", r"stage 0: width is \[16, 20\]; expected multiples of 8"),
        ("kernel_size = [3, 5]", "kernel_size = [3, 4]", r"stage 0: kernel_size is \[3, 4\]; expected odd numbers"),
        ("stride = 2", "stride = 3", "stage 0: stride is 3; expected 1 or 2"),
        ("se = true", "se = 1", "stage 0: se is true or false; got 1"),
        ("image_size = 32", 'image_size = 32\nact = "gelu"', "act is 'gelu'; expected one of swish, relu"),
        ("[stem]\nwidth = [8, 16]", "stem = 8", r"\[stem\] is a table with width; got 8"),
        ('name = "mine"', 'name = ""', "the space has no name"),
        ("[[stage]]", "[stage]", "'stage' is a list of tables"),
        ("num_classes = 5", "num_classes = true", "num_classes is True; expected a whole number"),
        ("resolution = [24, 32]", "resolution = [24, 24]", "ascending, no repeats"),
        ("resolution = [24, 32]", "resolution = [true]", r"resolution is \[True\]; expected a list of whole numbers"),
        ("depth = [1, 2]", "depth = [0, 1]", r"stage 0: depth is \[0, 1\]; expected positive whole numbers"),
        ("depth = [1, 2]", "", r"stage 0 has the fields .*; missing: \['depth'\]"),
        ("depth = [1, 2]", "depth = [1, 2]\npool = 1", r"stage 0 has .*; .* unknown: \['pool'\]"),
        ("width = [8, 16]", "width = [12]", r"stem.width is \[12\]; expected multiples of 8"),
        ("width = [8, 16]", "width = [8]\nkernel_size = -3", "stem.kernel_size is -3; expected"),
        ("width = [8, 16]", "width = [8]\nkernel_size = 4", r"stem.kernel_size is \[4\]; expected odd numbers"),
        ("width = [8, 16]", "width = [8]\nstride = 0", "stem.stride is 0; expected 1 or 2"),
        ("width = [64]\nexpand_ratio = 4", "width = [64]", r"\[head\] has .* missing: \['expand_ratio'\]"),
        ("expand_ratio = 4\n", "expand_ratio = 0\n", "head.expand_ratio is 0; expected a positive whole number"),
        ('name = "mine"', "name = 5", "name is 5; expected text"),
    ],
)
def test_a_wrong_definition_is_told_with_the_place(tmp_path, old, new, message):
    if old.startswith("[stem]"):  # a bare key must come before the first table
        text = TOML.replace(old, "").replace("num_classes = 5", f"num_classes = 5\n{new}")
    else:
        text = TOML.replace(old, new, 1)
    (tmp_path / "mine.toml").write_text(text)

    with pytest.raises(SpaceError, match=message) as caught:
        load_space(str(tmp_path / "mine.toml"))
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": []}, "space 'tiny' has no stage; add at least one"),
        ({"stage": [3]}, "stage 0 is a table with width, depth, .*; got 3"),
        ({"version": 2}, "version is 2; this nas2edge reads version 1"),
        ({"format": "nas2edge.subnet"}, "format is 'nas2edge.subnet'; expected 'nas2edge.space'"),
    ],
)
def test_a_wrong_object_is_told(change, message):
    with pytest.raises(SpaceError, match=message):
        space_from_dict({**TINY.to_dict(), **change})


def test_a_space_is_read_from_the_json_that_it_gives(tmp_path, tiny_space):
    (tmp_path / "two.json").write_text(json.dumps(tiny_space.to_dict()))

    assert load_space(str(tmp_path / "two.json")) == tiny_space


def test_genes_are_named_by_field_and_place(tiny_space):
    assert tiny_space.genes == (
        "resolution", "width.0", "width.1", "width.2", "width.3", "depth.0", "depth.1", "kernel_size.0",
        "kernel_size.1", "expand_ratio.0", "expand_ratio.1",
    )  # fmt: skip
    assert tiny_space.size == 2 * (2 * 2 * 2 * 1) * (2 * 2) * (1 * 2) * (2 * 1) == np.prod(tiny_space.cardinalities)


def test_codes_are_places_among_the_choices(tiny_space):
    assert tiny_space.encode([tiny_space.smallest()]).tolist() == [[0] * 11]
    assert tiny_space.encode([tiny_space.largest()]).tolist() == [[1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0]]


def test_what_is_outside_cannot_be_encoded(tiny_space):
    with pytest.raises(SubnetError, match="width has 7 entries; space 'two-stages' has 4"):
        tiny_space.encode([TINY.smallest()])


def test_an_unknown_space_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown space 'atentivenas'; did you mean 'attentivenas'"):
        load_space("atentivenas")


def test_a_file_of_another_format_is_no_space(tmp_path):
    (tmp_path / "s.json").write_text('{"format": "nas2edge.subnet", "version": 1}')

    with pytest.raises(FormatError, match="is a 'nas2edge.subnet' file; expected 'nas2edge.space'"):
        load_space(str(tmp_path / "s.json"))


def test_the_space_of_one_member_has_it_and_no_other():
    subnet = TINY.decode(TINY.sample(1, np.random.default_rng(1)))[0]
    alone = TINY.only(subnet)
    assert alone.size == 1
    assert alone.smallest() == alone.largest() == subnet
    assert plan(alone, subnet) == plan(TINY, subnet)
    assert alone.digest != TINY.digest
    with pytest.raises(SubnetError, match="resolution is 7"):
        TINY.only(replace(subnet, resolution=7))

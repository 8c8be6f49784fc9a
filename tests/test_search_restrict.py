"""Parts of a space: what is fixed stays fixed, metrics and bounds follow, and contradictions are refused."""

import numpy as np
import pytest

from nas2edge import AdditiveMetric, SearchSpace, StageSpace, load_space
from nas2edge.costs import count_macs
from nas2edge.errors import InfeasibleError, InputError, UnknownNameError
from nas2edge.search.restrict import forbid_operations, parse_fixed, parse_forbidden, restrict
from tests.search_spaces import every_code, small_space

SPACE = small_space()


def test_a_part_holds_just_the_members_with_the_fixed_values() -> None:
    part = restrict(SPACE, {"resolution": 24, "kernel_size": 5, "depth.1": 2})

    inner = set(part.inner.decode(every_code(part.inner)))
    expected = {
        net
        for net in SPACE.decode(every_code(SPACE))
        if net.resolution == 24 and net.kernel_size == (5, 5) and net.depth[1] == 2
    }
    assert inner == expected
    assert part.inner.size == SPACE.size // 3 // 4 // 3


def test_lifting_turns_codes_of_the_part_into_codes_of_the_whole() -> None:
    part = restrict(SPACE, {"resolution": 32, "depth.1": 2})
    codes = every_code(part.inner)

    assert SPACE.decode(part.lift(codes)) == part.inner.decode(codes)


@pytest.mark.parametrize("additive", [True, False])
def test_a_metric_of_the_part_is_that_of_the_whole_there(additive: bool) -> None:
    whole = AdditiveMetric(SPACE, count_macs)
    part = restrict(SPACE, {"width.1": 16})
    codes = every_code(part.inner)

    metric = part.metric(whole if additive else lambda codes: whole(codes))

    assert metric(codes).tolist() == whole(part.lift(codes)).tolist()


def test_the_bounds_of_a_part_are_exact() -> None:
    part = restrict(SPACE, {"resolution": 24})
    metric = part.metric(AdditiveMetric(SPACE, count_macs))

    assert isinstance(metric, AdditiveMetric)
    values = metric(every_code(part.inner))
    assert (metric.minimum().value, metric.maximum().value) == (values.min(), values.max())


def test_nothing_fixed_is_the_whole_space() -> None:
    part = restrict(SPACE, {})
    metric = AdditiveMetric(SPACE, count_macs)

    assert part.inner is SPACE
    assert part.metric(metric) is metric
    codes = SPACE.sample(5, np.random.default_rng(0))
    assert np.array_equal(part.lift(codes), codes)


def test_the_name_of_a_part_says_what_is_fixed() -> None:
    assert restrict(SPACE, {"resolution": 24}).inner.name == "small with resolution=24"


def test_fixed_values_are_read() -> None:
    assert parse_fixed(["resolution=224", " depth.2 = 3 ", "resolution=224"]) == {"resolution": 224, "depth.2": 3}


@pytest.mark.parametrize("entry", ["resolution", "resolution=big", "resolution=", "depth.2=1.5"])
def test_what_is_no_fixed_value_is_refused(entry: str) -> None:
    with pytest.raises(InputError, match="is not GENE=VALUE with a whole number; for example resolution=224"):
        parse_fixed([entry])


def test_two_values_of_one_gene_contradict_each_other() -> None:
    with pytest.raises(InputError, match="--fix resolution=224 and --fix resolution=192 contradict each other"):
        parse_fixed(["resolution=224", "resolution=192"])


@pytest.mark.parametrize(
    ("fixed", "error", "message"),
    [
        ({"kernel_size": 3, "kernel_size.1": 5}, InputError, "kernel_size=3 and kernel_size.1=5 contradict each other"),
        ({"resolution": 20}, InputError, "cannot fix resolution=20: resolution of the space 'small' may be 16, 24, 32"),
        ({"expand_ratio": 1}, InputError, "expand_ratio.1 .* may be 2, 3; name single genes, such as expand_ratio.1"),
        ({"depht.1": 1}, UnknownNameError, "unknown gene 'depht.1'; did you mean 'depth.1'"),
        ({"depth.7": 1}, UnknownNameError, "unknown gene 'depth.7'"),
    ],
)
def test_what_the_space_does_not_offer_is_refused(fixed: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        restrict(SPACE, fixed)


def test_squeeze_and_excitation_cannot_be_searched_away() -> None:
    with pytest.raises(InfeasibleError, match=r"in stages 2, 4, 5, 6: it belongs to the space.*se = false"):
        forbid_operations(load_space("attentivenas"), ["se"])


def test_activations_belong_to_the_space_too() -> None:
    with pytest.raises(InfeasibleError, match="has the activation swish: it belongs to the space"):
        forbid_operations(SPACE, ["swish"])
    with pytest.raises(InfeasibleError, match="squeeze-and-excitation in stage 1, which computes hsigmoid"):
        forbid_operations(SPACE, ["hsigmoid"])


def test_forbidden_entries_are_operations_and_values() -> None:
    assert parse_forbidden(["se", "kernel_size=5", " depth.1 = 3 ", "depth.1=2"]) == (
        ("se",),
        {"kernel_size": (5,), "depth.1": (3, 2)},
    )


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ("swich", UnknownNameError, "unknown operation to forbid 'swich'; did you mean 'swish'"),
        ("kernel_size=", InputError, "'kernel_size=' is not GENE=VALUE with a whole number"),
    ],
)
def test_what_cannot_be_forbidden_is_refused(entry: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_forbidden([entry])


def test_no_member_of_the_part_has_a_forbidden_value() -> None:
    part = restrict(SPACE, {"depth.1": 2}, {"kernel_size": (5,), "resolution": (16, 32)})

    assert part.inner.name == "small with depth.1=2, kernel_size≠5, resolution≠16, resolution≠32"
    assert part.inner.resolution == (24,)
    subnets = SPACE.decode(part.lift(part.inner.sample(50, np.random.default_rng(0))))
    assert {subnet.kernel_size for subnet in subnets} == {(3, 3)}
    assert {subnet.depth[1] for subnet in subnets} == {2}
    assert {subnet.expand_ratio[1] for subnet in subnets} == {2, 3}


@pytest.mark.parametrize(
    ("fixed", "forbidden", "error", "message"),
    [
        (
            {"kernel_size": 5},
            {"kernel_size.1": (5,)},
            InputError,
            r"kernel_size.1 is fixed \(kernel_size=5\) and",
        ),
        ({}, {"kernel_size": (3, 5)}, InfeasibleError, "every sub-network of the space 'small' has kernel_size.0 = 3"),
        ({}, {"expand_ratio": (7,)}, InputError, "cannot forbid expand_ratio=7: .* expand_ratio may be 1, 2, 3"),
        ({}, {"kernels": (5,)}, UnknownNameError, "unknown gene 'kernels'; did you mean 'kernel_size"),
    ],
)
def test_contradictions_are_refused(fixed, forbidden, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        restrict(SPACE, fixed, forbidden)


def test_a_space_without_it_may_be_searched() -> None:
    stage = StageSpace(width=(8,), depth=(1,), kernel_size=(3,), expand_ratio=(2,), stride=1, se=False)
    plain = (
        SearchSpace(
            name="plain",
            image_size=16,
            resolution=(16,),
            num_classes=2,
            stem_width=(8,),
            stages=(stage,),
            head_width=(16,),
            head_expand_ratio=2,
        )  # fmt: skip
    )
    forbid_operations(plain, ["se", "relu"])

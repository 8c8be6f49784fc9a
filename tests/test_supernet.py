"""The supernet: slices, extraction, shortcuts, recalibration."""

from functools import partial

import numpy as np
import pytest
import torch

from nas2edge.plan import plan
from nas2edge.space import SearchSpace, StageSpace
from nas2edge.spaces import load_space
from nas2edge.supernet.elastic import Supernet
from nas2edge.supernet.static import extract, recalibrate


@pytest.fixture(scope="module")
def tiny() -> SearchSpace:
    return load_space("tiny")


@pytest.fixture(scope="module")
def supernet(tiny) -> Supernet:
    torch.manual_seed(0)
    model = Supernet(tiny)
    for parameter in model.parameters():  # away from the zero gammas of the initialisation
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_extracted_network_is_bit_equal_to_the_slice(tiny, supernet):
    rng = np.random.default_rng(1)
    images = torch.randn(3, 3, 32, 32)

    for subnet in [tiny.smallest(), tiny.largest(), *tiny.decode(tiny.sample(8, rng))]:
        with torch.no_grad():
            assert torch.equal(supernet(images, subnet), extract(supernet, subnet)(images))


def test_batch_of_one_keeps_its_axis(tiny, supernet):
    assert supernet(torch.randn(1, 3, 32, 32), tiny.smallest()).shape == (1, 10)


def test_plan_agrees_with_what_runs(tiny, supernet):
    """Hooks on the extracted network see exactly the shapes that the plan says."""
    for subnet in tiny.decode(tiny.sample(5, np.random.default_rng(2))):
        net = extract(supernet, subnet)
        seen: dict[str, tuple[int, ...]] = {}
        for layer in net.layers:
            for op in layer.ops:
                name = f"{layer.name}.{op.name}"
                net.get_submodule(name).register_forward_hook(partial(_record, seen, name))
        net(torch.randn(2, 3, 32, 32))

        expected = {
            f"{layer.name}.{op.name}": (2, op.out_chs) if op.kind == "linear" else (2, op.out_chs, op.hw_out, op.hw_out)
            for layer in plan(tiny, subnet)
            for op in layer.ops
        }
        assert seen == expected


def _record(seen, name, module, inputs, output) -> None:
    seen[name] = tuple(output.shape)


def test_no_state_is_left_by_a_call(tiny, supernet):
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    images = torch.randn(4, 3, 32, 32)
    supernet.train()
    first = supernet(images, tiny.smallest())
    supernet(images, tiny.largest())
    second = supernet(images, tiny.smallest())
    supernet.eval()

    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in supernet.state_dict().items())


def test_a_shortcut_convolution_exists_wherever_some_subnet_needs_it():
    """Largest widths are equal here (16 -> 16), yet the smaller one (8 -> 16) needs the convolution."""
    stage = StageSpace(width=(16,), depth=(1,), kernel_size=(3,), expand_ratio=(2,), stride=1, se=True)
    space = SearchSpace(
        name="s", image_size=8, resolution=(8,), num_classes=2, stem_width=(8, 16), stages=(stage,), head_width=(16,),
        head_expand_ratio=2,
    )  # fmt: skip
    model = Supernet(space).eval()

    assert model(torch.randn(2, 3, 8, 8), space.smallest()).shape == (2, 2)
    assert model(torch.randn(2, 3, 8, 8), space.largest()).shape == (2, 2)


def test_recalibration_gives_the_mean_over_batches(tiny, supernet):
    net = extract(supernet, tiny.smallest())
    batches = [torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32) * 2]

    recalibrate(net, batches)

    stem = net.get_submodule("stem.conv")
    outputs = [
        torch.nn.functional.conv2d(torch.nn.functional.interpolate(x, size=(24, 24), mode="bicubic"), stem.weight,
                                   stride=2, padding=1) for x in batches
    ]  # fmt: skip
    mean = sum(y.mean((0, 2, 3)) for y in outputs) / 2
    var = sum(y.var((0, 2, 3), unbiased=True) for y in outputs) / 2
    torch.testing.assert_close(stem.bn.running_mean, mean)
    torch.testing.assert_close(stem.bn.running_var, var)
    assert not net.training


def test_recalibration_without_images_keeps_the_statistics(tiny, supernet):
    net = extract(supernet, tiny.smallest())
    before = net.get_submodule("stem.conv.bn").running_var.clone()

    recalibrate(net, [])

    assert torch.equal(net.get_submodule("stem.conv.bn").running_var, before)


def test_drop_connect_grows_with_the_slot_in_the_last_two_stages(tiny, supernet):
    """AlphaNet: rate * slot / slots, here 10 slots of which the last two stages hold 7..11 of 12."""
    deepest = [stage.depth[-1] for stage in tiny.stages]
    rates = {layer.name: supernet._drop_rate(layer, 0.2) for layer in plan(tiny, tiny.largest())}

    assert rates["stages.2.blocks.0"] == 0.0
    first_slot = sum(deepest[:3])
    assert rates["stages.3.blocks.1"] == pytest.approx(0.2 * (first_slot + 1) / sum(deepest))
    assert rates["head"] == 0.0

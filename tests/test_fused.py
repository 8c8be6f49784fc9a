"""Kernels of our own for training on a CPU: the same numbers as PyTorch's operations, values and gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas2edge.space import SearchSpace
from nas2edge.supernet import fused
from nas2edge.supernet.elastic import Supernet
from nas2edge.supernet.parts import is_small, part_of, pointwise_conv2d, product_with_part


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def channels_last(*shape: int, scale: float = 1.0) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * scale
    return values.contiguous(memory_format=torch.channels_last)


def gradients(f, *inputs: torch.Tensor) -> list[np.ndarray]:
    """The output, and the gradients of a weighted sum of it."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    y = f(*leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(7))
    (y * weights).sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)
    return [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves if leaf.grad is not None)]


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], *, rtol: float = 2e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.abs(b).max()))


def plain_norm_silu(x, weight, bias):
    """In float64, step by step."""
    x, weight, bias = x.double(), weight.double(), bias.double()
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    z = (x - mean) / torch.sqrt(var + 1e-5) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    return (z * torch.sigmoid(z)).float()


@pytest.mark.parametrize("shape", [(4, 24, 9, 9), (2, 17, 3, 5), (1, 8, 1, 2), (64, 40, 8, 8)])
def test_norm_and_silu_in_one(shape):
    x, chs = channels_last(*shape, scale=3.0) + 5.0, shape[1]
    weight, bias = torch.linspace(-2, 2, chs), torch.linspace(1, -3, chs)

    found = gradients(lambda *inputs: fused.norm_silu(*inputs, eps=1e-5), x, weight, bias)

    assert_close(found, gradients(plain_norm_silu, x, weight, bias), rtol=1e-4)


def test_norm_and_silu_of_a_far_mean_keeps_its_digits():
    """The variance is taken around a value of the data, so that squares of a far mean cannot cancel it."""
    x = channels_last(8, 16, 6, 6) + 3000.0
    found = fused.norm_silu(x, torch.ones(16), torch.zeros(16), eps=1e-5)
    expected = plain_norm_silu(x, torch.ones(16), torch.zeros(16))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-3)


def test_silu_is_right_at_both_ends():
    weight, bias = torch.full((2,), 1e4), torch.zeros(2)
    x = channels_last(2, 2, 3, 3)
    found = fused.norm_silu(x, weight, bias, eps=1e-5).numpy()
    np.testing.assert_allclose(found, plain_norm_silu(x, weight, bias).numpy(), rtol=1e-4, atol=1e-3)
    assert found.min() <= 0.0 < 1e3 < found.max()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad):
    x = channels_last(2, 3, 4, 4)
    x[0, 1, 0, 0] = bad
    found = fused.norm_silu(x, torch.ones(3), torch.zeros(3), eps=1e-5)
    assert not found[:, 1].isfinite().any()
    assert found[:, [0, 2]].isfinite().all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "side"), [(5, 8), (5, 7), (5, 2), (7, 9), (7, 3), (3, 6)])
def test_depthwise_convolutions(kernel, side, stride):
    x, weight = channels_last(3, 20, side, side), channels_last(20, 1, kernel, kernel)

    found = gradients(lambda *inputs: fused.depthwise_conv2d(*inputs, stride=stride), x, weight)

    plain = gradients(lambda a, b: F.conv2d(a.double(), b.double(), None, stride, kernel // 2, groups=20), x, weight)
    assert_close(found, plain)


def test_two_threads_find_what_one_finds():
    x, weight = channels_last(32, 64, 16, 16), channels_last(64, 1, 5, 5)
    ones, zeros = torch.ones(64), torch.zeros(64)

    def both(x, weight, ones, zeros):
        return fused.norm_silu(fused.depthwise_conv2d(x, weight, stride=1), ones, zeros, eps=1e-5)

    alone = gradients(both, x, weight, ones, zeros)
    torch.set_num_threads(2)
    assert len(list(fused._parts(32, x.numel()))) == 2
    assert_close(gradients(both, x, weight, ones, zeros), alone)


@pytest.mark.parametrize("n", [8, 16, 3])
def test_pointwise_convolutions_of_small_batches(n):
    x, weight, bias = channels_last(n, 6, 4, 10), channels_last(9, 6, 1, 1), torch.linspace(-1, 1, 9)
    assert_close(gradients(pointwise_conv2d, x, weight, bias), gradients(F.conv2d, x, weight, bias))


@pytest.mark.parametrize("shape", [(4, 24, 9, 9), (2, 17, 3, 5), (1, 8, 1, 2), (40, 40, 8, 8)])
def test_squeeze_and_excitation(shape):
    x, weight = channels_last(*shape), channels_last(shape[1], shape[1], 1, 1)

    def ours(x, weight):
        return fused.scale_by_gate(x, lambda means: torch.sigmoid(F.conv2d(means, weight)))

    def plain(x, weight):
        x, weight = x.double(), weight.double()
        return (x * torch.sigmoid(F.conv2d(x.mean((2, 3), keepdim=True), weight))).float()

    assert_close(gradients(ours, x, weight), gradients(plain, x, weight))
    with torch.no_grad():
        torch.testing.assert_close(ours(x, weight), plain(x, weight), rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_part_is_added_to_the_parameters_own():
    parameter = nn.Parameter(torch.arange(12.0).reshape(3, 4))
    (part_of(parameter, slice(2), slice(3)) * 2.0).sum().backward()
    part_of(parameter, slice(1)).sum().backward()
    expected = torch.tensor([[3.0, 3.0, 3.0, 1.0], [2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(parameter.grad, expected)


def test_normalisation_uses_the_first_channels_of_its_parameters():
    x = channels_last(4, 6, 5, 5)
    weight, bias = nn.Parameter(torch.linspace(1, 2, 8)), nn.Parameter(torch.linspace(-1, 1, 8))
    alone, other = nn.Parameter(weight.detach()[:6].clone()), nn.Parameter(bias.detach()[:6].clone())

    for parts in ((weight, bias), (alone, other)):
        fused.norm_silu(x, *parts, eps=1e-5).square().sum().backward()

    assert weight.grad[6:].tolist() == bias.grad[6:].tolist() == [0.0, 0.0]
    torch.testing.assert_close(weight.grad[:6], alone.grad)
    torch.testing.assert_close(bias.grad[:6], other.grad)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1, 1)])
def test_the_gradient_of_a_product_is_added_to_the_parameters_own(shape):
    parameter, x = nn.Parameter(channels_last(5, 7, 1, 1).reshape(shape)), torch.randn(6, 4, requires_grad=True)
    bias = torch.ones(3)
    product_with_part(x, parameter, 3, bias).sum().backward()
    product_with_part(x, parameter, 3, bias).sum().backward()
    assert parameter.grad is not None

    own = parameter.detach().reshape(5, 7)[:3, :4].clone().requires_grad_()
    other = x.detach().clone().requires_grad_()
    (2.0 * F.linear(other, own, bias)).sum().backward()
    torch.testing.assert_close(parameter.grad.reshape(5, 7)[:3, :4], own.grad)
    torch.testing.assert_close(x.grad, other.grad)
    assert not parameter.grad.reshape(5, 7)[3:].any() and not parameter.grad.reshape(5, 7)[:, 4:].any()


def test_only_small_products_are_taken_by_hand():
    assert is_small(torch.zeros(2, 5))
    assert is_small(channels_last(2, 5, 4, 4))
    assert not is_small(torch.zeros(2, 5, 4, 4))  # of another memory order
    assert not is_small(channels_last(16, 5, 16, 16))


def step_gradients(space: SearchSpace) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    model = Supernet(space).train()
    for name, parameter in model.named_parameters():
        if name.endswith("bn.weight"):
            nn.init.ones_(parameter)
    model.to(memory_format=torch.channels_last)
    images = channels_last(6, 3, 24, 24)
    for subnet in (space.largest(), space.smallest()):
        F.cross_entropy(model(images, subnet), torch.tensor([0, 1, 2] * 2)).backward()
    return {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}


def test_a_step_without_the_kernels_has_the_same_gradients(tiny_space, monkeypatch):
    ours = step_gradients(tiny_space)
    monkeypatch.setattr(fused, "compiles", lambda: False)
    plain = step_gradients(tiny_space)

    assert ours.keys() == plain.keys()
    for name, expected in plain.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("convert", [torch.Tensor.double, torch.Tensor.contiguous])
def test_other_types_and_memory_orders_go_through_pytorch(convert):
    x = convert(channels_last(2, 8, 6, 6))
    weight, bias = torch.ones(8, dtype=x.dtype), torch.zeros(8, dtype=x.dtype)
    found = fused.norm_silu(x, weight, bias, eps=1e-5)
    torch.testing.assert_close(found.float(), plain_norm_silu(x, weight, bias), rtol=1e-4, atol=1e-5)

"""ONNX graphs of plans: equal to the torch network, at every opset, to the byte."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from nas2edge.errors import CheckpointError, InputError
from nas2edge.graph import (
    MIN_OPSET,
    chain_model,
    fold_batch_norm,
    layer_model,
    network_model,
    newest_opset,
    random_weights,
)
from nas2edge.plan import LayerSpec, plan, round_channels
from nas2edge.space import SearchSpace, StageSpace
from nas2edge.spaces import load_space
from nas2edge.supernet.static import StaticNet

DRAWN = 16


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """Odd sides, both strides, with and without expansion and squeeze-and-excitation, all four shortcuts."""
    return SearchSpace(
        name="odd",
        image_size=28,
        resolution=(18, 28),
        num_classes=5,
        stem_width=(8, 16),
        stages=(
            StageSpace(width=(8, 16), depth=(1, 2), kernel_size=(3,), expand_ratio=(1,), stride=1, se=False),
            StageSpace(width=(16,), depth=(1, 2), kernel_size=(3, 5), expand_ratio=(1, 3), stride=2, se=True),
            StageSpace(width=(16, 24), depth=(1, 2), kernel_size=(5, 7), expand_ratio=(2,), stride=2, se=False),
        ),
        head_width=(32,),
        head_expand_ratio=2,
    )


def trained(layers: Sequence[LayerSpec], seed: int = 0) -> StaticNet:
    """A network whose every weight and statistic is away from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    net = StaticNet(layers).eval()
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif value.is_floating_point():
            value.normal_(0.0, 0.4, generator=generator)
    return net


def folded(net: StaticNet) -> dict[str, np.ndarray]:
    return fold_batch_norm(net.layers, {name: value.numpy() for name, value in net.state_dict().items()})


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def relative_error(reference: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(other - reference).max() / np.abs(reference).max())


def test_network_equals_the_torch_network(space):
    rng = np.random.default_rng(0)
    shortcuts: set[str] = set()

    for i, subnet in enumerate([space.smallest(), space.largest(), *space.decode(space.sample(DRAWN, rng))]):
        net = trained(plan(space, subnet), seed=i)
        images = rng.standard_normal((2, 3, subnet.resolution, subnet.resolution)).astype(np.float32)
        with torch.no_grad():
            expected = net(torch.from_numpy(images)).numpy()
        got = run(network_model(net.layers, folded(net), batch=2), images)
        shortcuts |= {layer.shortcut for layer in net.layers}

        assert relative_error(expected, got) < 1e-5  # float32 sums in another order
    assert shortcuts == {"none", "identity", "pool", "conv", "pool+conv"}


@pytest.mark.parametrize("hw", [6, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out_chs", [8, 16])
@pytest.mark.parametrize("mid_chs", [8, 24])
@pytest.mark.parametrize("se", [False, True])
@pytest.mark.parametrize("act", ["swish", "relu"])
def test_every_kind_of_block_equals_torch(hw, stride, out_chs, mid_chs, se, act):
    shortcut = "+".join((["pool"] if stride == 2 else []) + (["conv"] if out_chs != 8 else [])) or "identity"
    block = LayerSpec(
        name="block",
        op="mbconv",
        hw_in=hw,
        hw_out=-(-hw // stride),
        in_chs=8,
        mid_chs=mid_chs,
        out_chs=out_chs,
        kernel_size=5,
        stride=stride,
        se_chs=round_channels(mid_chs // 4) if se else 0,
        act=act,
        shortcut=shortcut,
    )
    x = np.random.default_rng(0).standard_normal((1, 8, hw, hw)).astype(np.float32)
    net = trained([block])
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()

    got = run(chain_model([block], folded(net)), x)

    assert got.shape == expected.shape == (1, out_chs, block.hw_out, block.hw_out)
    assert relative_error(expected, got) < 1e-5


def test_average_pooling_of_an_odd_side_counts_its_padding():
    """A 3x3 map of ones, padded by one: a corner window sees one in four cells, an edge two, the middle four."""
    block = LayerSpec(
        name="block",
        op="mbconv",
        hw_in=3,
        hw_out=2,
        in_chs=8,
        mid_chs=8,
        out_chs=8,
        kernel_size=3,
        stride=2,
        act="relu",
        shortcut="pool",
    )
    silent = {name: np.zeros_like(value) for name, value in random_weights([block], np.random.default_rng(0)).items()}

    got = run(chain_model([block], silent), np.ones((1, 8, 3, 3), np.float32))

    np.testing.assert_array_equal(got[0, 0], [[0.25, 0.5], [0.5, 1.0]])


@pytest.mark.parametrize("index", [0, 1, -1])
def test_a_layer_alone_runs_at_its_shape(index):
    layer = plan(load_space("tiny"), load_space("tiny").smallest())[index]

    model = layer_model(layer, rng=np.random.default_rng(0), batch=3)

    got = run(model, np.zeros((3, layer.in_chs, layer.hw_in, layer.hw_in), np.float32))
    is_head = layer.op == "mbpool"
    assert got.shape == ((3, 10) if is_head else (3, layer.out_chs, layer.hw_out, layer.hw_out))


def test_layers_one_after_another_are_the_network(space):
    layers = plan(space, space.largest())
    rng = np.random.default_rng(1)
    weights = random_weights(layers, rng)
    images = rng.standard_normal((1, 3, 28, 28)).astype(np.float32)
    whole = run(network_model(layers, weights), images)

    value = images
    for layer in layers:
        value = run(chain_model([layer], weights), value)

    assert relative_error(whole, value) < 1e-5


def test_fold_by_hand():
    """One input channel, two output channels, variance 3 + eps chosen so that the root is exact."""
    stem = LayerSpec(name="stem", op="first_conv", hw_in=2, hw_out=2, in_chs=1, mid_chs=2, out_chs=2, kernel_size=1,
                     stride=1, act="relu")  # fmt: skip
    state = {
        "stem.conv.weight": np.array([2.0, -1.0]).reshape(2, 1, 1, 1),
        "stem.conv.bn.weight": np.array([3.0, 5.0]),
        "stem.conv.bn.bias": np.array([0.5, -0.5]),
        "stem.conv.bn.running_mean": np.array([1.0, 4.0]),
        "stem.conv.bn.running_var": np.array([4.0, 0.25]) - 1e-5,
    }

    weights = fold_batch_norm([stem], state)

    # scale = gamma / sqrt(var + eps) = 3/2 and 5/0.5; shift = beta - mean * scale = 0.5 - 1.5 and -0.5 - 40.
    np.testing.assert_allclose(weights["stem.conv.weight"].ravel(), [3.0, -10.0], rtol=1e-7)
    np.testing.assert_allclose(weights["stem.conv.bias"], [-1.0, -40.5], rtol=1e-7)
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("opset", sorted({MIN_OPSET, 17, 18, newest_opset()}))
def test_opsets_agree(space, opset):
    layers = plan(space, space.largest())
    rng = np.random.default_rng(2)
    weights = random_weights(layers, rng)
    images = rng.standard_normal((1, 3, 28, 28)).astype(np.float32)

    model = network_model(layers, weights, opset=opset)

    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [opset]
    assert relative_error(run(network_model(layers, weights), images), run(model, images)) < 1e-5


def test_equal_input_gives_equal_bytes(space):
    layers = plan(space, space.largest())
    weights = random_weights(layers, np.random.default_rng(3))
    notes = {"b": "2", "a": "1"}

    first = network_model(layers, weights, metadata=notes).SerializeToString(deterministic=True)
    second = network_model(
        layers, dict(reversed(weights.items())), metadata=dict(reversed(notes.items()))
    ).SerializeToString(deterministic=True)

    assert first == second


def test_batch_may_stay_open(space):
    layers = plan(space, space.smallest())
    model = network_model(layers, random_weights(layers, np.random.default_rng(4)), batch=None)

    assert [run(model, np.zeros((n, 3, 18, 18), np.float32)).shape for n in (1, 5)] == [(1, 5), (5, 5)]


def test_random_weights_keep_activations_in_range():
    """Deep chains must neither overflow nor decay to denormals, which run slowly and would spoil latency tables."""
    space = load_space("attentivenas")
    layers = plan(space, space.smallest())
    rng = np.random.default_rng(5)

    logits = run(network_model(layers, random_weights(layers, rng)), rng.standard_normal((1, 3, 192, 192), np.float32))

    assert 1e-2 < logits.std() < 1e2


@pytest.mark.parametrize("opset", [MIN_OPSET - 1, newest_opset() + 1])
def test_an_opset_out_of_range_is_named(space, opset):
    layers = plan(space, space.smallest())

    with pytest.raises(InputError, match=f"opset {opset} is out of range; expected 13 to"):
        network_model(layers, random_weights(layers, np.random.default_rng(0)), opset=opset)


def test_layers_that_do_not_follow_are_named(space):
    layers = plan(space, space.smallest())
    weights = random_weights(layers, np.random.default_rng(0))

    with pytest.raises(InputError, match=r"stages\.1\.blocks\.0 does not follow on stem"):
        network_model([layers[0], replace(layers[2], in_chs=24), *layers[3:]], weights)


def test_weights_of_another_network_are_refused(space):
    layers = plan(space, space.smallest())
    weights = random_weights(layers, np.random.default_rng(0))
    wrong = {**weights, "stem.conv.bias": np.zeros(3, np.float32)}

    with pytest.raises(CheckpointError, match=r"'stem.conv.bias' has shape \(3,\); the plan needs \(8,\)"):
        network_model(layers, wrong)
    with pytest.raises(CheckpointError, match=r"weights lack 'stem.conv.weight'"):
        network_model(layers, {})


def test_a_negative_variance_is_refused(space):
    net = trained(plan(space, space.smallest()))
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    state["stem.conv.bn.running_var"] = -state["stem.conv.bn.running_var"]

    with pytest.raises(CheckpointError, match=r"stem\.conv\.bn\.running_var has negative values"):
        fold_batch_norm(net.layers, state)

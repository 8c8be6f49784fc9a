"""Preparation of images: the rule by NumPy, by torch, and inside the model are one."""

import numpy as np
import onnx
import pytest
import torch

from nas2edge.export.onnx_file import open_model
from nas2edge.export.preprocess import bake, differs, prepare, rule_of
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.spaces import load_space
from nas2edge.supernet.blocks import resize
from nas2edge.supernet.evaluate import normalise
from nas2edge.supernet.images import ImageSet
from nas2edge.supernet.weights_file import Preprocess

PREPROCESS = Preprocess(image_size=32, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.5))
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
IMAGES = ImageSet(pixels=PIXELS, labels=np.zeros(5, dtype=np.int64), classes=("a",))


def test_by_hand():
    """One pixel: (200 / 255 - 0.5) / 0.25."""
    rule = rule_of(PREPROCESS, 32, pixels=False)
    white = np.full((1, 3, 32, 32), 200, dtype=np.uint8)

    found = prepare(white, rule)

    assert found.shape == (1, 3, 32, 32)
    assert found.dtype == np.float32
    by_hand = [(200 / 255 - 0.5) / 0.25, (200 / 255 - 0.4) / 0.2, (200 / 255 - 0.3) / 0.5]
    np.testing.assert_allclose(found[0, :, 0, 0], by_hand, rtol=1e-6)


@pytest.mark.parametrize("resolution", [24, 28, 32, 48])
def test_the_rule_gives_what_training_and_search_use(resolution):
    expected = resize(normalise(IMAGES, PREPROCESS), resolution).numpy()

    found = prepare(PIXELS, rule_of(PREPROCESS, resolution, pixels=False))

    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert not differs(expected, found)


def test_pixels_are_resized_and_rounded():
    expected = resize(torch.from_numpy(PIXELS).float(), 24).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    found = prepare(PIXELS, rule_of(PREPROCESS, 24, pixels=True))

    assert (found.shape, found.dtype) == ((5, 24, 24, 3), np.uint8)
    assert not differs(expected.numpy(), found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": [0.4, 0.5, 0.3]}, "values differ by up to"),
        ({"std": [0.2, 0.2, 0.5]}, "values differ by up to"),
        ({"colour": "BGR"}, "values differ by up to"),
        ({"layout": "NHWC"}, r"it is float32 of shape \(5, 24, 24, 3\), expected float32 of shape \(5, 3, 24, 24\)"),
        ({"dtype": "uint8"}, "it is uint8 of shape"),
    ],
)
def test_any_other_rule_is_told_apart(change, said):
    rule = rule_of(PREPROCESS, 24, pixels=False)
    expected = prepare(PIXELS, rule)

    with pytest.raises(AssertionError, match=said):
        assert not (found := differs(expected, prepare(PIXELS, {**rule, **change}))), found


def test_one_pixel_more_is_told_apart():
    pixels = prepare(PIXELS, rule_of(PREPROCESS, 24, pixels=True))
    brighter = np.minimum(pixels, 254) + 1

    assert differs(pixels, brighter.astype(np.uint8)).endswith("% of the pixels differ")


@pytest.mark.parametrize("batch", [2, None])
def test_the_model_prepares_pixels_itself(batch):
    space = load_space("tiny")
    layers = plan(space, space.smallest())
    model = network_model(layers, random_weights(layers, np.random.default_rng(0)), batch=batch)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    prepared = ImageSet(pixels=pixels.transpose(0, 3, 1, 2), labels=IMAGES.labels, classes=("a",))

    baked = bake(model, PREPROCESS)

    onnx.checker.check_model(baked, full_check=True)
    (expected,) = open_model(model).run(None, {"images": normalise(prepared, PREPROCESS).numpy()})
    (found,) = open_model(baked).run(None, {"pixels": pixels})
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert [entry.op_type for entry in baked.graph.node[:4]] == ["Cast", "Transpose", "Sub", "Mul"]
    assert len(model.graph.input) == 1
    assert model.graph.input[0].name == "images"  # the one given is as it was

"""The ONNX target: any number of images through any batch size, and an answer where the runtime gives none."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from nas2edge.errors import InputError
from nas2edge.export.registry import load_exporter
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.space import SearchSpace

IMAGES = np.random.default_rng(1).standard_normal((7, 3, 16, 16)).astype(np.float32)


def write_model(folder: Path, space: SearchSpace, batch: int | None) -> Path:
    layers = plan(space, space.smallest())
    model = network_model(layers, random_weights(layers, np.random.default_rng(0)), batch=batch)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def run(model: Path) -> np.ndarray:
    exporter = load_exporter("onnx")
    return exporter.run(exporter.build(model, batch=(1, 1, 1)), IMAGES)


@pytest.mark.parametrize("batch", [2, 7, 8, None])
def test_any_batch_size_gives_the_same_logits(tmp_path, tiny_space, batch):
    one_by_one = run(write_model(tmp_path, tiny_space, 1))

    got = run(write_model(tmp_path, tiny_space, batch))

    assert got.shape == (7, 3)
    np.testing.assert_allclose(got, one_by_one, atol=1e-5)


def test_a_model_that_the_runtime_does_not_know_is_an_input_error(tmp_path, tiny_space):
    path = write_model(tmp_path, tiny_space, 1)
    model = onnx.load(path)
    model.opset_import[0].version = 99
    onnx.save(model, path)

    with pytest.raises(InputError, match=r"does not load the model: .*give a lower --opset, or install a newer"):
        run(path)

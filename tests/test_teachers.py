"""Teachers from outside."""

import sys
import types

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from nas2edge.errors import CheckpointError, InputError
from nas2edge.train.teachers import load_teacher

IMAGES = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4) / 96


class MeanOfChannels(torch.nn.Module):
    """Three classes: the mean of each channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


EXPECTED = IMAGES.mean((2, 3))


def onnx_file(path, *, batch) -> str:
    shape = [batch, 3, 4, 4]
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["m"]),
        helper.make_node("Flatten", ["m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize("batch", [1, "n"], ids=["batch of one", "any batch"])
def test_an_onnx_teacher(tmp_path, batch):
    teacher = load_teacher(onnx_file(tmp_path / "t.onnx", batch=batch), num_classes=3)

    torch.testing.assert_close(teacher(IMAGES), EXPECTED)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_torchscript_teacher(tmp_path):
    torch.jit.trace(MeanOfChannels(), IMAGES).save(str(tmp_path / "t.pt"))

    torch.testing.assert_close(load_teacher(str(tmp_path / "t.pt"), num_classes=3)(IMAGES), EXPECTED)


def test_a_factory_as_teacher(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_models", types.SimpleNamespace(make=MeanOfChannels, text=lambda: "no module"))

    torch.testing.assert_close(load_teacher("my_models:make", num_classes=3)(IMAGES), EXPECTED)
    with pytest.raises(InputError, match="returns a str; expected a torch module"):
        load_teacher("my_models:text", num_classes=3)


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    teacher = load_teacher(onnx_file(tmp_path / "t.onnx", batch="n"), num_classes=10)

    with pytest.raises(InputError, match=r"returns shape \(2, 3\) for 2 images; expected \(2, 10\)"):
        teacher(IMAGES)


@pytest.mark.parametrize("name", ["t.onnx", "t.pt"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_corrupt_teacher_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"garbage")

    with pytest.raises(CheckpointError, match="is not a readable"):
        load_teacher(str(tmp_path / name), num_classes=3)


@pytest.mark.parametrize("spec", ["resnet", "no_such_module:make"])
def test_a_specification_that_is_not_understood_is_told(spec):
    with pytest.raises(InputError, match="is not understood|cannot be imported"):
        load_teacher(spec, num_classes=3)

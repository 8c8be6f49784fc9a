"""Published checkpoints: safe reading of torch files, and conformance of the import with the original AlphaNet."""

import collections
import json
import os
import pickle
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.errors import CheckpointError
from nas2edge.space import SubnetConfig
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.released import import_alphanet
from nas2edge.supernet.static import extract
from nas2edge.supernet.unpickle import Inert, read_torch_file

DATA = Path(__file__).parent / "data"
SHAPES = json.loads((DATA / "alphanet_state_dict.json").read_text())
CASES = json.loads((DATA / "alphanet_logits.json").read_text())["cases"]


class Config(dict):
    """As the original trainer's: a dict whose attributes are its items."""

    def __init__(self, **values):
        super().__init__(values)
        self.__dict__ = self


def save_as_trainer(path: Path, state: dict, *, legacy: bool = True) -> Path:
    """Writes a file as the original trainer does, with its own class inside."""
    module = types.ModuleType("utils.config")
    Config.__module__, Config.__qualname__ = "utils.config", "Config"
    vars(module)["Config"] = Config
    sys.modules["utils"], sys.modules["utils.config"] = types.ModuleType("utils"), module
    try:
        content = {"epoch": 360, "args": Config(batch_size=32, arch="attentive"), "state_dict": state}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    finally:
        del sys.modules["utils"], sys.modules["utils.config"]
    return path


def rule_made(name: str, shape: list[int]) -> torch.Tensor:
    """The weights that the reference logits were computed with (tests/data/alphanet_logits.json, weight_rule)."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif name.endswith(".weight") and len(shape) > 1:
        z = z * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(".weight"):
        z = 1 + 0.1 * z
    else:
        z = 0.1 * z
    return torch.from_numpy(z.astype(np.float32))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    state = collections.OrderedDict((f"module.{name}", rule_made(name, shape)) for name, shape in SHAPES.items())
    return save_as_trainer(tmp_path_factory.mktemp("released") / "alphanet.pth.tar", state)


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "run"
    result = CliRunner().invoke(main, ["import", str(checkpoint), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_an_imported_supernet_has_the_logits_of_the_original_in_float64(run, case):
    subnet = SubnetConfig.from_dict(case["config"])
    side = case["input_resolution"]
    images = np.random.default_rng(0).standard_normal((2, 3, side, side)).astype(np.float32)
    net = extract(load_supernet(str(run)).model, subnet).double()

    with torch.no_grad():
        logits = net(torch.from_numpy(images).double()).numpy()

    expected = np.load(DATA / "alphanet_logits.npz")[f"{case['key']}__static_f64"]
    assert np.abs(logits - expected).max() <= case["suggested_atol_f64"]


def test_an_import_does_not_overwrite_a_run(run, checkpoint):
    result = CliRunner().invoke(main, ["import", str(checkpoint), "--out", str(run)])

    assert result.exit_code == 2
    assert "exists; give --out a new folder" in result.stderr


def test_missing_unknown_and_misshapen_weights_are_listed(tmp_path):
    state = {f"module.{name}": torch.zeros(shape) for name, shape in SHAPES.items()}
    del state["module.classifier.linear.linear.bias"]
    state["module.odd.weight"] = torch.zeros(1)
    state["module.first_conv.conv.conv.weight"] = torch.zeros(24, 3, 5, 5)

    with pytest.raises(CheckpointError) as caught:
        import_alphanet(save_as_trainer(tmp_path / "bad.pth", state))

    assert "missing head.classifier.bias" in str(caught.value)
    assert "unknown odd.weight" in str(caught.value)
    assert "stem.conv.weight has shape (24, 3, 5, 5), expected (24, 3, 3, 3)" in str(caught.value)


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_tensors_come_back_as_they_were_saved(tmp_path, legacy):
    base = torch.arange(24, dtype=torch.float32).view(4, 6)
    saved = {
        "plain": base,
        "view": base[1:, ::2],
        "transposed": base.t(),
        "long": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "other": [1, "a", (2.5, None)],
    }
    torch.save(saved, tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy)

    read = read_torch_file(tmp_path / "file.pt")

    for name in ("plain", "view", "transposed", "long", "parameter"):
        np.testing.assert_array_equal(read[name], saved[name].detach().numpy())
    assert read["other"] == [1, "a", [2.5, None]]


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_the_trainers_own_class_is_read_as_inert(tmp_path, legacy):
    path = save_as_trainer(tmp_path / "file.pt", {"w": torch.ones(2)}, legacy=legacy)

    read = read_torch_file(path, inert=("utils.config.",))

    assert isinstance(read["args"], Inert)
    assert read["epoch"] == 360


class Hostile:
    """Runs a command when it is unpickled by a reader that trusts it."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self):
        return os.system, (self._command,)


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(tmp_path, legacy):
    proof = tmp_path / "was-run"
    content = {"state_dict": {"w": torch.ones(2)}, "args": Hostile(f"touch {proof}")}
    torch.save(content, tmp_path / "hostile.pt", _use_new_zipfile_serialization=not legacy)

    result = CliRunner().invoke(main, ["import", str(tmp_path / "hostile.pt"), "--out", str(tmp_path / "run")])

    assert result.exit_code == 2
    assert f"asks for {os.system.__module__}.system" in result.stderr
    assert not proof.exists()
    assert not (tmp_path / "run").exists()


def test_a_bare_hostile_pickle_is_refused_too(tmp_path):
    proof = tmp_path / "was-run"
    (tmp_path / "hostile.pt").write_bytes(pickle.dumps(Hostile(f"touch {proof}")))

    with pytest.raises(CheckpointError, match="asks for"):
        read_torch_file(tmp_path / "hostile.pt")
    assert not proof.exists()


@pytest.mark.parametrize("cut", [5, 400, -10])
def test_a_truncated_file_is_told(tmp_path, cut):
    torch.save({"w": torch.ones(100)}, tmp_path / "file.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "file.pt").write_bytes((tmp_path / "file.pt").read_bytes()[:cut])

    with pytest.raises(CheckpointError, match="truncated|corrupt"):
        read_torch_file(tmp_path / "file.pt")


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path):
    torch.save({"w": torch.ones(4)}, tmp_path / "file.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "file.pt").read_bytes()
    shape = pickle.dumps((4,), protocol=2)[2:-3]  # K\x04 and the tuple around it
    assert data.count(shape) >= 1
    (tmp_path / "file.pt").write_bytes(data.replace(shape, shape.replace(b"\x04", b"\x40")))

    with pytest.raises(CheckpointError, match="reaches outside its storage"):
        read_torch_file(tmp_path / "file.pt")


def test_a_file_that_is_no_torch_file_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")

    with pytest.raises(CheckpointError, match="corrupt or was not written by torch.save"):
        read_torch_file(tmp_path / "notes.txt")

"""Training with compiled networks: PyTorch's compiler takes them whole, and gradients stay what they were."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.supernet.elastic import Supernet
from nas2edge.train.recipe import Recipe
from nas2edge.train.step import add_gradients, make_strategy
from tests.image_folders import write_bright_and_dark
from tests.search_spaces import trainable_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return trainable_space(num_classes=2)


def test_gradients_are_those_of_networks_that_are_not_compiled(space, monkeypatch):
    """Traced as for the real backend, then run by PyTorch's own functions: only the generation of code is left out."""
    torch.manual_seed(0)
    model = Supernet(space).train().to(memory_format=torch.channels_last)
    for name, parameter in model.named_parameters():
        if name.endswith("bn.weight"):
            torch.nn.init.ones_(parameter)
    images, labels = torch.randn(6, 3, 12, 12), torch.arange(6) % 2
    recipe, gradients, plain = Recipe(beta=0.5), [], []
    forward = Supernet.forward

    def noted(self: Supernet, x: torch.Tensor, subnet: SubnetConfig, **rates: float) -> torch.Tensor:
        plain.append(subnet)
        return forward(self, x, subnet, **rates)

    monkeypatch.setattr(Supernet, "forward", noted)
    for backend in (None, "aot_eager"):
        strategy = make_strategy(model, recipe, backend=backend)
        add_gradients(model, images, labels, strategy=strategy, rng=np.random.default_rng(0))
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()

    ends = (space.largest(), space.smallest())
    assert len(plain[:4]) == 4
    assert plain[4:] == [subnet for subnet in plain[:4] if subnet not in ends]
    assert max(float(value.abs().max()) for value in gradients[0].values()) > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_command_trains_what_it_compiled(tmp_path):
    write_bright_and_dark(tmp_path / "images", each=24, height=32, width=32)
    command = ["train", "--subnet", "smallest", "--compile", "--data", str(tmp_path / "images"), "--epochs", "4"]
    command += ["--out", str(tmp_path / "run"), "--batch-size", "8", "--held-out", "8", "--calibration", "16"]

    shown = CliRunner().invoke(main, [*command, "--set", "warmup_epochs=0"])

    assert shown.exit_code == 0, shown.output
    assert "largest 100.00 %" in shown.output

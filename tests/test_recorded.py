"""Sub-networks recorded once and replayed: gradients, losses and what follows are those of running them anew.

There is no GPU to test on; a stand-in for a CUDA graph runs the function again, into the memory of its first outputs.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nas2edge.space import SearchSpace
from nas2edge.supernet.elastic import Supernet
from nas2edge.train.recipe import Recipe
from nas2edge.train.recorded import Recorder, capture_graph
from nas2edge.train.step import add_gradients, make_strategy
from tests.search_spaces import trainable_space


def capture(run):
    run()
    outputs = tuple(value.clone() for value in run())

    def replay():
        for place, value in zip(outputs, run(), strict=True):
            place.copy_(value)

    return outputs, replay


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return trainable_space(num_classes=2)


def make_model(space, seed=0):
    torch.manual_seed(seed)
    model = Supernet(space).train().to(memory_format=torch.channels_last)
    for name, parameter in model.named_parameters():
        if name.endswith("bn.weight"):
            torch.nn.init.ones_(parameter)
    return model


def gradients_of(model, strategy, *, step, batch=6):
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(batch, 3, 12, 12, generator=generator)
    model.zero_grad()
    torch.manual_seed(step)
    losses = add_gradients(model, images, torch.arange(batch) % 2, strategy=strategy, rng=np.random.default_rng(step))
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("distillation", ["kd", "adaptive-alpha"])
def test_gradients_and_losses_are_those_of_running_anew(space, distillation):
    model = make_model(space)
    plain = make_strategy(model, Recipe(distillation=distillation, dropout=0.2, drop_connect=0.2))
    recorder = Recorder(model, capture=capture)
    recording = replace(plain, recorder=recorder)

    for step, batch in enumerate((6, 6, 4, 6)):
        losses, expected = gradients_of(model, plain, step=step, batch=batch)
        found_losses, found = gradients_of(model, recording, step=step, batch=batch)

        assert found_losses == losses
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_the_largest_and_the_smallest_alone_are_recorded(space):
    model, recorded = make_model(space), []

    def noting(run):
        recorded.append(run)
        return capture(run)

    strategy = replace(make_strategy(model, Recipe()), recorder=Recorder(model, capture=noting))

    for step in range(3):
        gradients_of(model, strategy, step=step)

    assert len(recorded) == 2


def test_a_function_that_is_recorded_amid_a_step_adds_to_what_was_there():
    layer = torch.nn.Linear(2, 1, bias=False)
    recorder = Recorder(layer, capture=capture)

    def learn(x):
        loss = layer(x).sum()
        torch.autograd.backward(loss)
        return (loss.detach(),)

    recorder.begin()
    learn(torch.tensor([[1.0, 2.0]]))
    recorder("a", learn, torch.tensor([[10.0, 20.0]]))
    first = layer.weight.grad.clone()
    place = layer.weight.grad.data_ptr()
    recorder.begin()
    recorder("a", learn, torch.tensor([[3.0, 4.0]]))

    assert first.tolist() == [[11.0, 22.0]]
    assert layer.weight.grad.tolist() == [[3.0, 4.0]]
    assert layer.weight.grad.data_ptr() == place


def test_recording_takes_no_random_numbers_from_the_step():
    layer = torch.nn.Linear(2, 1)

    def learn(x):
        return (x * torch.rand(2),)

    torch.manual_seed(0)
    expected = learn(torch.ones(2))[0]
    torch.manual_seed(0)

    (found,) = Recorder(layer, capture=capture)("a", learn, torch.ones(2))

    assert found.tolist() == expected.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_does_what_it_recorded():
    layer = torch.nn.Linear(2, 1, bias=False).cuda()
    recorder = Recorder(layer, capture=capture_graph)

    def learn(x):
        loss = layer(x).sum()
        torch.autograd.backward(loss)
        return (loss.detach(),)

    for values in ([1.0, 2.0], [3.0, 4.0]):
        recorder.begin()
        (loss,) = recorder("a", learn, torch.tensor([values], device="cuda"))
        torch.testing.assert_close(loss, layer(torch.tensor([values], device="cuda")).sum().detach())
        assert layer.weight.grad.tolist() == [values]

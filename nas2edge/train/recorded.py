"""Sub-networks that every step trains, recorded once on a GPU and replayed from then on as CUDA graphs.

A small network is hundreds of short kernels each way; starting them one by one takes the processor longer than the GPU
needs to run them. A graph starts them all at once. What is recorded reads its inputs and adds its gradients at fixed
places in memory, so the parameters' gradients keep theirs from step to step.

>>> recorder = Recorder(supernet)  # doctest: +SKIP
>>> recorder.begin()  # doctest: +SKIP
>>> logits, loss = recorder(subnet, learn, images, labels)  # doctest: +SKIP
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

Learn = Callable[..., tuple[Tensor, ...]]
"""Maps tensors to tensors, and adds gradients to parameters."""
Capture = Callable[[Callable[[], tuple[Tensor, ...]]], tuple[tuple[Tensor, ...], Callable[[], None]]]
"""Records a function, after running it some times; returns its outputs, which each run of what else it returns fills
anew."""

logger = logging.getLogger(__name__)

_WARMUP = 3  # runs, as PyTorch's documentation of CUDA graphs asks for


def capture_graph(run: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
    """Records a function as a CUDA graph; its convolutions are those that cuDNN found fastest."""
    graph, chooses = torch.cuda.CUDAGraph(), torch.backends.cudnn.benchmark
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    torch.backends.cudnn.benchmark = True
    try:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            outputs = run()
    finally:
        torch.backends.cudnn.benchmark = chooses
    return outputs, graph.replay


@dataclass(frozen=True, slots=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    replay: Callable[[], None]

    def fits(self, inputs: tuple[Tensor, ...]) -> bool:
        return [value.shape for value in inputs] == [value.shape for value in self.inputs]


@final
class Recorder:
    """Records functions that add gradients to a model's parameters, each at its first call.

    Args:
        model: The model.
        capture: Records a function; `capture_graph` does on a GPU.
    """

    def __init__(self, model: nn.Module, *, capture: Capture = capture_graph) -> None:
        self._model, self._capture = model, capture
        self._recordings: dict[Hashable, _Recording] = {}
        self._gradients: dict[nn.Parameter, Tensor] = {}

    def begin(self) -> None:
        """Starts a step: parameters of recorded functions have gradients of zero, all others none."""
        for parameter in self._model.parameters():
            parameter.grad = self._gradients.get(parameter)
        if self._gradients:
            torch._foreach_zero_(list(self._gradients.values()))

    def __call__(self, key: Hashable, learn: Learn, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Runs a function, as it was recorded under its key unless the inputs have other shapes now.

        Args:
            key: Names the function.
            learn: The function; what else it depends on must be the same at every call.
            inputs: Its arguments.

        Returns:
            What it returns, in memory that the next call under the key writes to.
        """
        if key not in self._recordings:
            self._recordings[key] = self._record(learn, inputs)
        recording = self._recordings[key]
        if not recording.fits(inputs):
            return learn(*inputs)
        for place, value in zip(recording.inputs, inputs, strict=True):
            place.copy_(value)
        recording.replay()
        return recording.outputs

    def _record(self, learn: Learn, inputs: tuple[Tensor, ...]) -> _Recording:
        logger.info("recording a sub-network as a CUDA graph; the first step takes longer by that")
        places = tuple(value.clone(memory_format=torch.preserve_format) for value in inputs)
        parameters = list(self._model.parameters())
        before = [None if parameter.grad is None else parameter.grad.clone() for parameter in parameters]
        for parameter in parameters:
            parameter.grad = self._gradients.get(parameter)
        devices = sorted({value.device.index for value in inputs if value.device.type == "cuda"})
        with torch.random.fork_rng(devices):
            outputs, replay = self._capture(lambda: learn(*places))
        for parameter, gradient in zip(parameters, before, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
                continue
            self._gradients[parameter] = parameter.grad
            parameter.grad.copy_(gradient) if gradient is not None else parameter.grad.zero_()
        return _Recording(places, outputs, replay)

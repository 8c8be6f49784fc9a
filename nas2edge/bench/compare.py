"""Measuring artefacts for people to read: several beside each other, every pair compared, the anchor beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from nas2edge.bench.artefact import Artefact
from nas2edge.bench.footprint import read_footprint
from nas2edge.bench.gate import log_ratios
from nas2edge.bench.measure import Options, Round, measure_round
from nas2edge.bench.result import Result, make_result
from nas2edge.bench.stats import Interval, median_interval
from nas2edge.errors import InputError

logger = logging.getLogger(__name__)

DEFAULT_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two artefacts compared.

    Args:
        new: Name of the one that is divided.
        old: Name of the one that it is divided by.
        ratio: Median of paired ratios of their times, with its interval.
    """

    new: str
    old: str
    ratio: Interval


def measure_all(
    artefacts: Sequence[Artefact],
    options: Options,
    *,
    rounds: int = DEFAULT_ROUNDS,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> tuple[tuple[Result, ...], tuple[Pair, ...], tuple[Round, ...]]:
    """Measures artefacts in turns, with the anchor beside them.

    Args:
        artefacts: One or more.
        options: How to time; artefacts may have different inputs, whatever it says.
        rounds: How many; each has fresh processes.
        progress: Called after each round with (done, planned).

    Returns:
        A result an artefact, a comparison a pair, and the rounds, whose last row is the anchor.

    Raises:
        InputError: An artefact does not say the shape of its input, or there are fewer than two rounds.
        FormatError: A file is damaged.
        RuntimeFailedError: A runtime refused an artefact, crashed, or did not answer in time.
    """
    if rounds < 2:
        raise InputError(f"rounds is {rounds}; an interval needs 2 or more")
    footprints = [read_footprint(artefact) for artefact in artefacts]
    found: list[Round] = []
    with anchor_file() as path:
        anchor = Artefact(name="the anchor", path=path, runtime="onnxruntime")
        for number in range(rounds):
            found.append(measure_round([*artefacts, anchor], replace(options, same_input=False), number=number))
            progress(len(found), rounds)
    results = tuple(
        make_result(artefact, footprint, found, index=i, anchor=len(artefacts))
        for i, (artefact, footprint) in enumerate(zip(artefacts, footprints, strict=True))
    )
    pairs = tuple(
        Pair(
            new=artefacts[new].name,
            old=artefacts[old].name,
            ratio=median_interval(log_ratios(found, new=new, old=old)).map(lambda log: float(np.exp(log))),
        )
        for old, new in combinations(range(len(artefacts)), 2)
    )
    return results, pairs, tuple(found)


@contextmanager
def anchor_file() -> Iterator[Path]:
    """Yields an ONNX file of the anchor: eight equal blocks, some tenth of a millisecond on a desktop core."""
    import onnx

    from nas2edge.graph import chain_model, random_weights
    from nas2edge.plan import LayerSpec

    layers = [
        LayerSpec(
            name=f"anchor.{i}",
            op="mbconv",
            hw_in=8,
            hw_out=8,
            in_chs=48,
            mid_chs=48,
            out_chs=48,
            kernel_size=3,
            stride=1,
            act="swish",
            shortcut="identity",
        )
        for i in range(8)
    ]
    with TemporaryDirectory(prefix="nas2edge-anchor-") as folder:
        path = Path(folder) / "anchor.onnx"
        onnx.save(chain_model(layers, random_weights(layers, np.random.default_rng(0))), path)
        yield path

"""Where `nas2edge search` takes accuracies from: a supernet that is run, or published points."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from nas2edge.cli._common import result_console, use_threads
from nas2edge.errors import InputError
from nas2edge.search.limits import Metric
from nas2edge.search.pareto_file import AccuracySource
from nas2edge.search.run import codes_from_evaluator
from nas2edge.space import SearchSpace
from nas2edge.spaces import load_space

DEFAULT_SUPERNET = "builtin:tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """An accuracy source with what follows from its cost.

    Args:
        space: The space that it is of.
        evaluate: Top-1 in percent of a population.
        tested: Images that each accuracy is measured on; None where none is.
        error: Its standard error in points, where that does not follow from the number of images.
        note: What the error is, in a few words.
        supernet: {"source": ..., "sha256": ...} of the weights; None without any.
        known: Accuracies that were measured by an earlier search.
        evaluations: How many to spend by default; None leaves it to the search.
    """

    space: SearchSpace
    evaluate: Metric
    tested: int | None
    error: float
    note: str
    supernet: Mapping[str, str] | None
    known: int = 0
    evaluations: int | None = None

    @property
    def guided(self) -> bool:
        """Whether an accuracy is expensive."""
        return self.tested is not None

    def metric(self, advance: Callable[[int], None]) -> Metric:
        """Returns the accuracy as a function of populations that tells how far it is."""
        if not self.guided:
            return self.evaluate

        def one_by_one(codes: Any) -> Any:
            values = []
            for i in range(len(codes)):
                values.append(float(self.evaluate(codes[i : i + 1])[0]))
                advance(1)
            return np.array(values)

        return one_by_one

    def stated(self, accuracy: float) -> AccuracySource:
        """Returns what files say of the source, with the error at an accuracy."""
        if self.tested is None:
            return AccuracySource(source="published-points", error=self.error, note=self.note)
        error = math.sqrt(accuracy * (100.0 - accuracy) / self.tested)
        return AccuracySource(source="supernet", error=error, note=self.note)


def find_accuracy(
    *, supernet: str | None, space_name: str | None, data: Path | None, threads: int | None, cache: Path
) -> Accuracy:
    """Returns the source that the options ask for.

    Args:
        cache: Folder in which measured accuracies are kept.
    """
    if supernet and space_name:
        raise InputError("--supernet and --space exclude each other: a supernet brings its own space")
    if space_name is None or space_name == "tiny":
        return _supernet_accuracy(supernet or DEFAULT_SUPERNET, data, threads, cache)
    if data is not None:
        raise InputError("--data are images to run a supernet on; give --supernet instead of --space")
    return _published_accuracy(load_space(space_name))


@contextmanager
def show_progress(source: Accuracy, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields what to call with the number of accuracies evaluated; draws a bar where someone may look."""
    if not source.guided or total is None:
        yield lambda _: None
        return
    known = f"; {source.known} of this supernet are known already" if source.known else ""
    if not sys.stderr.isatty():
        click.echo(f"evaluating up to {total} sub-networks on {source.tested} images each{known}", err=True)
        yield lambda _: None
        return
    from rich.progress import Progress

    with Progress(console=result_console(as_json=True), transient=True) as bar:
        task = bar.add_task("evaluating accuracies", total=min(total, source.space.size))
        yield lambda n: bar.advance(task, n)


def _supernet_accuracy(supernet: str, data: Path | None, threads: int | None, cache: Path) -> Accuracy:
    from nas2edge.optional import require
    from nas2edge.search.cache import CACHE_NAME, CachedEvaluator, digest_of_images
    from nas2edge.supernet.weights_file import supernet_info

    info = supernet_info(supernet)
    require("torch", "PIL", extra="export", purpose="measuring accuracy")
    from nas2edge.supernet.checkpoint import load_supernet
    from nas2edge.supernet.evaluate import make_evaluator

    use_threads(threads, info.space)
    evaluator = make_evaluator(load_supernet(supernet), data=data)
    cached = CachedEvaluator(
        evaluator, cache / CACHE_NAME, supernet_sha256=info.sha256, data=digest_of_images(data, info.images)
    )
    return Accuracy(
        space=info.space,
        evaluate=codes_from_evaluator(info.space, cached),
        tested=evaluator.tested,
        error=0.0,
        note=f"standard error on {evaluator.tested} validation images",
        supernet={"source": supernet, "sha256": info.sha256},
        known=len(cached.known),
        evaluations=100,
    )


def _published_accuracy(space: SearchSpace) -> Accuracy:
    from nas2edge.search.published import PublishedAccuracy
    from nas2edge.spaces.published import ALPHANET

    accuracy = PublishedAccuracy(space)
    return Accuracy(
        space=space,
        evaluate=accuracy,
        tested=None,
        error=accuracy.rms_error,
        note=f"a curve over MACs through {len(ALPHANET)} published networks, each left out in turn; "
        f"at most {accuracy.max_error:.2f} off there, and blind to all but MACs",
        supernet=None,
    )

"""Where `nas2edge search` takes accuracies from: a predictor, a supernet that is run, or published points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas2edge.cli._common import open_evaluator
from nas2edge.cli._progress import count_progress
from nas2edge.errors import InputError
from nas2edge.search import Candidate, SearchResult
from nas2edge.search.limits import Metric
from nas2edge.search.pareto_file import AccuracySource
from nas2edge.search.reevaluate import Reevaluated, reevaluate
from nas2edge.search.run import Evaluator, codes_from_evaluator
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.spaces import load_space

if TYPE_CHECKING:
    from nas2edge.search.cache import CachedEvaluator
    from nas2edge.search.predictor import Predictor
    from nas2edge.supernet.evaluate import SupernetEvaluator
    from nas2edge.supernet.pool import EvaluatorPool
    from nas2edge.supernet.weights_file import SupernetInfo

DEFAULT_SUPERNET = "builtin:tiny"
PREDICTED_EVALUATIONS = 20_000
"""A prediction takes some ten times a look-up; 50,000 found the same sub-networks under all limits that were tried."""

AUTO, PREDICTOR, SUPERNET = SOURCES = ("auto", "predictor", "supernet")

SearchBy = Callable[[Metric], SearchResult]
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """An accuracy source with what follows from its cost.

    Args:
        source: "predictor", "supernet" or "published-points".
        space: The space that it is of.
        evaluate: Top-1 in percent of a population.
        tested: Images that each accuracy is measured on; None where none is.
        error: Its standard error in points, where that does not follow from the number of images.
        note: What the error is, in a few words; "" where that is said when the predictor has served.
        supernet: {"source": ..., "sha256": ...} of the weights; None without any.
        known: Accuracies that were measured by an earlier search, or when the predictor was fitted.
        evaluations: How many to spend by default; None leaves it to the search.
        predictor: That predicts the accuracies; None where another source gives them.
        reevaluate: Of the best that a predictor finds, how many the supernet evaluates; None for the chosen ones alone.
        unable: Why the supernet evaluates none, where it would by default; "" where it can, or was not to.
        evaluator: Makes what evaluates them.
        watch: Says what to call with the number of accuracies that have become known.
    """

    source: str
    space: SearchSpace
    evaluate: Metric
    tested: int | None
    error: float
    note: str
    supernet: Mapping[str, str] | None
    known: Mapping[SubnetConfig, float]
    evaluations: int | None = None
    predictor: Predictor | None = None
    reevaluate: int | None = 0
    unable: str = ""
    evaluator: Callable[[], Evaluator] | None = None
    watch: Callable[[Advance], None] = lambda _: None

    @property
    def guided(self) -> bool:
        """Whether an accuracy is expensive."""
        return self.tested is not None

    def find(self, search_by: SearchBy, *, evaluations: int | None) -> tuple[SearchResult, AccuracySource]:
        """Searches, and returns what was found with what files say of its accuracies.

        Args:
            search_by: The search, but for the accuracy.
            evaluations: The greatest number of accuracies, as asked for.
        """
        if self.predictor is not None:
            found = self._by_predictor(search_by, self.predictor)
            if self.unable and any(choice.candidate.measured_accuracy is None for choice in found.result.choices):
                click.echo(f"note: accuracies are predictions: {self.unable}", err=True)
            return found.result, _predicted(found, asked=self.reevaluate != 0)
        with show_progress(self, evaluations or self.evaluations) as advance:
            self.watch(advance)
            result = search_by(self.evaluate)
        return result, self._stated(result.best)

    def _stated(self, best: Candidate) -> AccuracySource:
        if self.tested is None:
            return AccuracySource(source=self.source, error=self.error, note=self.note)
        return AccuracySource(
            source=self.source, error=binomial_error(best.accuracy, self.tested), note=self.note, images=self.tested
        )

    def _by_predictor(self, search_by: SearchBy, predictor: Predictor) -> Reevaluated:
        evaluate: Evaluator | None = None

        def measure(subnets: Sequence[SubnetConfig]) -> Sequence[float]:
            nonlocal evaluate
            click.echo(f"evaluating {len(subnets)} of the best on {predictor.images} images each", err=True)
            if evaluate is None:
                assert self.evaluator is not None
                evaluate = self.evaluator()
            return evaluate(subnets)

        return reevaluate(search_by, predictor, known=self.known, evaluate=measure, refit=_refit, n=self.reevaluate)


def binomial_error(accuracy: float, images: int) -> float:
    """Returns the standard error of an accuracy, both in percent, that was measured on so many images."""
    return math.sqrt(accuracy * (100.0 - accuracy) / images)


def find_accuracy(
    *,
    supernet: str | None,
    space_name: str | None,
    data: Path | None,
    processes: int,
    threads: int | None,
    cache: Path,
    source: str = AUTO,
    reevaluate: int | None = 0,
    keeps_state: bool = False,
) -> Accuracy:
    """Returns the source that the options ask for.

    Args:
        cache: Folder in which measured accuracies are kept.
        source: One of `SOURCES`; "auto" takes a predictor where one lies beside the weights.
        reevaluate: Of the best that a predictor finds, how many the supernet evaluates; None for the chosen ones, where
            torch and the images are at hand.
        keeps_state: Whether the search is one that can be resumed, and so evaluates nothing by default.
    """
    if supernet and space_name:
        raise InputError("--supernet and --space exclude each other: a supernet brings its own space")
    if space_name is None or space_name == "tiny":
        run = _Run(data=data, processes=processes, threads=threads, cache=cache)
        return _weights_accuracy(supernet or DEFAULT_SUPERNET, run, source, reevaluate, keeps_state=keeps_state)
    if data is not None:
        raise InputError("--data are images to run a supernet on; give --supernet instead of --space")
    if source != AUTO or reevaluate:
        option = f"--accuracy {source}" if source != AUTO else "--reevaluate"
        raise InputError(f"{option} needs weights; give --supernet instead of --space")
    return _published_accuracy(load_space(space_name))


@contextmanager
def show_progress(source: Accuracy, total: int | None) -> Iterator[Advance]:
    """Yields what to call with the number of accuracies that have become known."""
    if not source.guided or total is None:
        yield lambda _: None
        return
    known = f"; {len(source.known)} of this supernet are known already" if source.known else ""
    click.echo(f"evaluating up to {total} sub-networks on {source.tested} images each{known}", err=True)
    with count_progress(min(total, source.space.size), "evaluating accuracies") as advance:
        yield advance


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """How a supernet is run, where it is: on which images, and where accuracies are kept."""

    data: Path | None
    processes: int
    threads: int | None
    cache: Path


def _weights_accuracy(supernet: str, run: _Run, source: str, reevaluate: int | None, *, keeps_state: bool) -> Accuracy:
    """Returns the accuracy by a predictor, where one is asked for or lies beside the weights, else by the weights."""
    from nas2edge.search.predictor import PREDICTOR_NAME
    from nas2edge.supernet.weights_file import supernet_info

    info = supernet_info(supernet)
    path = info.path.with_name(PREDICTOR_NAME)
    if source == SUPERNET or (source == AUTO and (run.data is not None or not path.exists())):
        if reevaluate:
            raise InputError(
                "--reevaluate is how many of a predictor's best the supernet evaluates; here the supernet evaluates "
                "all: leave it out, or fit a predictor (nas2edge predictor fit)"
            )
        return _supernet_accuracy(info, run)
    if not path.exists():
        raise InputError(
            f"there is no predictor beside {info.path}; fit one: nas2edge predictor fit --supernet {supernet}"
        )
    return _predictor_accuracy(info, path, run, reevaluate, keeps_state=keeps_state)


def _predictor_accuracy(
    info: SupernetInfo, path: Path, run: _Run, reevaluate: int | None, *, keeps_state: bool
) -> Accuracy:
    from nas2edge.search.cache import EVALUATED_NAME, digest_of_images, read_accuracies
    from nas2edge.search.predictor import load_predictor

    predictor = load_predictor(path, space=info.space, supernet_sha256=info.sha256)
    others = digest_of_images(run.data, info.images) != predictor.data
    if (run.data is not None or reevaluate) and others:
        images = f"the images in {run.data}" if run.data is not None else "the images beside the weights"
        raise InputError(
            f"{path} was fitted to accuracies on other images than {images}; give those by --data, search with "
            "--accuracy supernet, or fit it anew: nas2edge predictor fit"
        )
    unable = ""
    if reevaluate is None:
        unable = _why_not(info, others=others, keeps_state=keeps_state)
    known = read_accuracies(path.with_name(EVALUATED_NAME), supernet_sha256=info.sha256, data=predictor.data)
    opened = cache(lambda: _evaluator(info, run))
    return Accuracy(
        source=PREDICTOR,
        space=info.space,
        evaluate=predictor,
        tested=None,
        error=predictor.rmse,
        note="",
        supernet={"source": info.source, "sha256": info.sha256},
        known=known,
        evaluations=PREDICTED_EVALUATIONS,
        predictor=predictor,
        reevaluate=0 if unable else reevaluate,
        unable=unable,
        # Torch is loaded for what is not in the cache, and once.
        evaluator=lambda: _cached(lambda subnets: opened().each(subnets) if subnets else (), info, run),
    )


def _why_not(info: SupernetInfo, *, others: bool, keeps_state: bool) -> str:
    """Returns why the chosen sub-networks cannot be evaluated; "" where they can."""
    from nas2edge.optional import is_installed

    if keeps_state:
        return "a search with --resume evaluates nothing; nas2edge evaluate --subnet does"
    if others:
        where = f"those beside {info.path} are others" if info.images else f"none lie beside {info.path}"
        return (
            f"the images that the predictor was fitted to are not at hand ({where}); give them by --data, with "
            "--accuracy predictor"
        )
    if not (is_installed("torch") and is_installed("PIL")):
        return "evaluating the chosen sub-network takes torch: pip install 'nas2edge[export]'"
    return ""


def _predicted(found: Reevaluated, *, asked: bool) -> AccuracySource:
    """Returns what files say of predicted accuracies."""
    from nas2edge.search.predictor import KIND_NAMES

    best, predictor, images = found.result.best, found.predictor, found.predictor.images
    assert best.accuracy_sigma is not None
    evaluated = sum(c.measured_accuracy is not None for c in found.result.front)
    tau = predictor.scores[predictor.kind].kendall_tau
    note = (
        f"{KIND_NAMES[predictor.kind]} on {predictor.samples} sub-networks that the supernet evaluated; "
        f"cross-validated Kendall tau {tau:.2f}; {evaluated} of the front were evaluated on {images} images"
    )
    if asked and not found.settled:
        note += f", and the choice still moved after {found.rounds} rounds"
    return AccuracySource(source=PREDICTOR, error=best.accuracy_sigma, note=note, images=images)


def _refit(predictor: Predictor, measured: Mapping[SubnetConfig, float]) -> Predictor:
    from nas2edge.search.predictor_fit import refit_predictor

    return refit_predictor(predictor, predictor.space.encode(measured), list(measured.values()))


def _supernet_accuracy(info: SupernetInfo, run: _Run) -> Accuracy:
    evaluator = _evaluator(info, run)
    cached, tested = _cached(evaluator.each, info, run), evaluator.tested
    return Accuracy(
        source=SUPERNET,
        space=info.space,
        evaluate=codes_from_evaluator(info.space, cached),
        tested=tested,
        error=0.0,
        note=f"standard error on {tested} validation images",
        supernet={"source": info.source, "sha256": info.sha256},
        known=cached.known,
        evaluations=100,
        watch=cached.watch,
    )


def _evaluator(info: SupernetInfo, run: _Run) -> SupernetEvaluator | EvaluatorPool:
    """Returns what runs the supernet."""
    from nas2edge.optional import require

    require("torch", "PIL", extra="export", purpose="measuring accuracy")
    from nas2edge.supernet.checkpoint import load_supernet

    return open_evaluator(load_supernet(info.source), processes=run.processes, threads=run.threads, data=run.data)


def _cached(
    evaluate: Callable[[Sequence[SubnetConfig]], Iterable[float]], info: SupernetInfo, run: _Run
) -> CachedEvaluator:
    """Returns what evaluates where the accuracy is not known yet."""
    from nas2edge.search.cache import CACHE_NAME, EVALUATED_NAME, CachedEvaluator, digest_of_images, read_accuracies

    digest = digest_of_images(run.data, info.images)
    known = read_accuracies(info.path.with_name(EVALUATED_NAME), supernet_sha256=info.sha256, data=digest)
    return CachedEvaluator(evaluate, run.cache / CACHE_NAME, supernet_sha256=info.sha256, data=digest, known=known)


def _published_accuracy(space: SearchSpace) -> Accuracy:
    from nas2edge.search.published import SOURCE, PublishedAccuracy
    from nas2edge.spaces.published import ALPHANET

    accuracy = PublishedAccuracy(space)
    return Accuracy(
        source=SOURCE,
        space=space,
        evaluate=accuracy,
        tested=None,
        error=accuracy.rms_error,
        note=f"a curve over MACs through {len(ALPHANET)} published networks, each left out in turn; "
        f"at most {accuracy.max_error:.2f} off there, and blind to all but MACs",
        supernet=None,
        known={},
    )

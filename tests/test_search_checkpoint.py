"""An interrupted search goes on from its state to the very result that it would have had."""

from collections.abc import Callable
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest

from nas2edge import AdditiveMetric, load_space
from nas2edge.costs import count_macs
from nas2edge.errors import FormatError, InputError
from nas2edge.search import Constraint, SearchResult, search
from nas2edge.search.checkpoint import Checkpoint
from nas2edge.search.evolution import evolve
from nas2edge.search.ledger import Evolved, Problem, Seen, Vector
from nas2edge.search.pareto import Scores
from nas2edge.space import Codes

SPACE = load_space("attentivenas")
MACS = AdditiveMetric(SPACE, count_macs)
GAIN = np.random.default_rng(7).random(len(SPACE.genes))


def _score(codes: Codes) -> Scores:
    return np.stack([-(np.sqrt(codes) @ GAIN), MACS(codes)], axis=1)


def _evolve(*, checkpoint: Checkpoint | None = None, fails_after: int = 10**9) -> Evolved:
    spent = 0

    def score(codes: Codes) -> Scores:
        nonlocal spent
        spent += len(codes)
        if spent > fails_after:
            raise KeyboardInterrupt
        return _score(codes)

    problem = Problem(
        space=SPACE, objectives=2, score=score, violation=lambda codes: np.maximum(0.0, MACS(codes) / 900e6 - 1)
    )
    return evolve(problem, evaluations=2000, population=50, rng=np.random.default_rng(3), checkpoint=checkpoint)


def _checkpoint(path: Path, *, identity: str = "a", every_s: float = 0.0) -> Checkpoint:
    return Checkpoint(path, identity=identity, every_s=every_s)


def test_an_interrupted_search_goes_on_to_the_same_result(tmp_path: Path) -> None:
    whole = _evolve()
    for fails_after in (400, 900):
        with pytest.raises(KeyboardInterrupt):
            _evolve(checkpoint=_checkpoint(tmp_path / "s.npz"), fails_after=fails_after)

    resumed = _evolve(checkpoint=_checkpoint(tmp_path / "s.npz"))

    assert np.array_equal(resumed.codes, whole.codes)
    assert np.array_equal(resumed.scores, whole.scores)
    assert (resumed.evaluations, resumed.examined, resumed.stop) == (whole.evaluations, whole.examined, whole.stop)
    assert resumed.convergence == whole.convergence


def test_keeping_the_state_changes_nothing(tmp_path: Path) -> None:
    assert np.array_equal(_evolve(checkpoint=_checkpoint(tmp_path / "s.npz")).scores, _evolve().scores)


def test_the_state_is_kept_only_when_it_is_time(tmp_path: Path) -> None:
    seconds = iter([0.0, 5.0, 11.0, 11.0, 12.0])
    checkpoint = Checkpoint(tmp_path / "s.npz", identity="a", every_s=10.0, clock=lambda: next(seconds))

    checkpoint.keep(lambda: {"x": np.arange(3)})
    assert not (tmp_path / "s.npz").exists()
    checkpoint.keep(lambda: {"x": np.arange(3)})
    checkpoint.keep(lambda: pytest.fail("asked for too early"))

    kept = checkpoint.load()
    assert kept is not None
    assert kept["x"].tolist() == [0, 1, 2]
    checkpoint.remove()
    assert checkpoint.load() is None


def test_the_state_of_another_search_is_refused(tmp_path: Path) -> None:
    _evolve(checkpoint=_checkpoint(tmp_path / "s.npz"))

    with pytest.raises(InputError, match="is the state of a search that was asked something else"):
        _evolve(checkpoint=_checkpoint(tmp_path / "s.npz", identity="b"))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(content)

    with pytest.raises(FormatError, match="is not the state of a search"):
        _checkpoint(tmp_path / "s.npz").load()


def test_what_was_met_in_a_space_beyond_64_bits_is_restored_exactly() -> None:
    seen = Seen(SPACE)
    seen._places = np.array([place * 10**9 for place in seen._places.tolist()], dtype=object)
    codes = SPACE.sample(20, np.random.default_rng(0))
    seen.unseen(codes)

    again = Seen(SPACE)
    again._places = seen._places
    again.restore(seen.to_array())

    assert not again.is_new(codes).any()
    assert len(again) == len(seen)


def _search(path: Path, *, fails_after: int = 10**9, **changes: object) -> SearchResult:
    spent = 0

    def accuracy(codes: Codes) -> Vector:
        nonlocal spent
        spent += len(codes)
        if spent > fails_after:
            raise KeyboardInterrupt
        return np.asarray(np.sqrt(codes) @ GAIN)

    asked = {"accuracy": accuracy, "constraints": [Constraint(metric="macs", limit=300e6)], "evaluations": 2000}
    return search(SPACE, resume=path, **{**asked, **changes})  # type: ignore[arg-type]


def test_a_whole_search_resumes_to_the_same_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _search(tmp_path / "whole.npz")
    monkeypatch.setattr(Checkpoint, "__init__", partialmethod(_always, Checkpoint.__init__))
    with pytest.raises(KeyboardInterrupt):
        _search(tmp_path / "s.npz", fails_after=700)
    assert (tmp_path / "s.npz").exists()

    with pytest.raises(InputError, match="asked something else"):
        _search(tmp_path / "s.npz", seed=1)
    with pytest.raises(InputError, match="now has other scores than it had"):
        _search(tmp_path / "s.npz", accuracy=lambda codes: np.ones(len(codes)))
    assert _search(tmp_path / "s.npz") == whole
    assert not (tmp_path / "s.npz").exists()


def _always(checkpoint: Checkpoint, init: Callable[..., None], path: Path, *, identity: str) -> None:
    init(checkpoint, path, identity=identity, every_s=0.0)


@pytest.mark.parametrize("algorithm", ["alphanet", "exact"])
def test_algorithms_without_a_state_refuse_to_resume(tmp_path: Path, algorithm: str) -> None:
    with pytest.raises(InputError, match=f"the algorithm '{algorithm}' keeps no state to resume from"):
        _search(tmp_path / "s.npz", algorithm=algorithm)


def test_a_guided_search_resumes_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"guided": True, "evaluations": 90, "population": 12}
    whole = _search(tmp_path / "whole.npz", **asked)
    monkeypatch.setattr(Checkpoint, "__init__", partialmethod(_always, Checkpoint.__init__))
    for fails_after in (50, 30):
        with pytest.raises(KeyboardInterrupt):
            _search(tmp_path / "s.npz", fails_after=fails_after, **asked)

    with pytest.raises(InputError, match="now has other scores than it had"):
        _search(tmp_path / "s.npz", **asked, accuracy=lambda codes: np.ones(len(codes)))
    resumed = _search(tmp_path / "s.npz", **asked)

    assert resumed == whole
    assert resumed.dominated is not None and whole.dominated is not None
    assert np.array_equal(resumed.dominated, whole.dominated)
    assert resumed.convergence is not None
    assert resumed.convergence.evaluations[0] == 24
    assert not (tmp_path / "s.npz").exists()

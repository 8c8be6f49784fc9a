"""Fixtures that tests of several parts share."""

import numpy as np
import pytest
from click.testing import CliRunner

from nas2edge import SearchSpace, StageSpace


@pytest.fixture
def tiny_space() -> SearchSpace:
    """Two stages, the first without and the second with squeeze-and-excitation; 16 pixels become 8, then 4."""
    return SearchSpace(
        name="two-stages",
        image_size=24,
        resolution=(16, 24),
        num_classes=3,
        stem_width=(8, 16),
        stages=(
            StageSpace(width=(8, 16), depth=(1, 2), kernel_size=(3,), expand_ratio=(1, 2), stride=1, se=False),
            StageSpace(width=(8, 16), depth=(2, 4), kernel_size=(3, 5), expand_ratio=(3,), stride=2, se=True),
        ),
        head_width=(16,),
        head_expand_ratio=2,
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def quiet(monkeypatch):
    """A machine where milliseconds count."""
    for name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))


@pytest.fixture
def clockwork(monkeypatch):
    """Rounds without processes: milliseconds follow from the file's name (4 blocks take 4 ms), with little noise."""
    from nas2edge.bench.measure import Round
    from tests.bench_nets import START

    rng = np.random.default_rng(0)
    taken = []

    def measure_round(artefacts, options, number=0):
        blocks = [8 if artefact.name == "the anchor" else int(artefact.path.stem[5]) for artefact in artefacts]
        logs = np.log(np.array(blocks) / 1e3)[:, None] + rng.normal(0, 0.002, (len(artefacts), 12))
        taken.append([artefact.name for artefact in artefacts])
        runs = tuple(np.exp(row) for row in logs)
        return Round(logs=logs, runs=runs, starts=(START,) * len(artefacts), seconds=0.1)

    monkeypatch.setattr("nas2edge.bench.check.measure_round", measure_round)
    return taken

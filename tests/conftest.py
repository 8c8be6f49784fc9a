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

"""Small spaces: small enough to list, or to train in seconds."""

import numpy as np

from nas2edge import SearchSpace, StageSpace
from nas2edge.space import Codes


def trainable_space(*, num_classes: int) -> SearchSpace:
    """Two stages of images of 12 pixels: trained in seconds."""
    stage = StageSpace(width=(8, 16), depth=(1, 2), kernel_size=(3, 5), expand_ratio=(2, 3), stride=2, se=True)
    return SearchSpace(
        name="small", image_size=12, resolution=(8, 12), num_classes=num_classes, stem_width=(8,),
        stages=(stage, stage), head_width=(16,), head_expand_ratio=2,
    )  # fmt: skip


def small_space() -> SearchSpace:
    """Two stages, 2304 sub-networks."""
    return SearchSpace(
        name="small",
        image_size=32,
        resolution=(16, 24, 32),
        num_classes=4,
        stem_width=(8, 16),
        stages=(
            StageSpace(width=(8, 16), depth=(1, 2), kernel_size=(3, 5), expand_ratio=(1, 2), stride=1, se=False),
            StageSpace(width=(16, 24), depth=(1, 2, 3), kernel_size=(3, 5), expand_ratio=(2, 3), stride=2, se=True),
        ),
        head_width=(32,),
        head_expand_ratio=2,
    )


def every_code(space: SearchSpace) -> Codes:
    """All sub-networks of a space: shape (size, genes)."""
    return np.stack(np.unravel_index(np.arange(space.size), space.cardinalities), axis=1)

"""A small space of the AttentiveNAS family for 32-pixel images: 1.4 to 11.4 MMACs, under 0.8 M parameters.

It exists so that a whole supernet trains on two CPU cores within two hours; the embedded supernet is one of it.
The stem keeps the family's stride of 2 but only two stages halve the map again, since the images are small.
"""

from __future__ import annotations

from nas2edge.space import SearchSpace, StageSpace


def tiny() -> SearchSpace:
    """Returns the space: a stem, five MBConv stages, MBPool; resolutions 24 to 32; ten classes."""
    kernels = (3, 5)
    return SearchSpace(
        name="tiny",
        image_size=32,
        resolution=(24, 28, 32),
        num_classes=10,
        stem_width=(16, 24),
        stages=(
            StageSpace(width=(16, 24), depth=(1, 2), kernel_size=kernels, expand_ratio=(1,), stride=1, se=False),
            StageSpace(width=(24, 32), depth=(1, 2), kernel_size=kernels, expand_ratio=(3, 4), stride=2, se=False),
            StageSpace(width=(32, 40), depth=(1, 2, 3), kernel_size=kernels, expand_ratio=(3, 4), stride=1, se=True),
            StageSpace(width=(64, 72), depth=(1, 2, 3), kernel_size=kernels, expand_ratio=(3, 4), stride=2, se=False),
            StageSpace(width=(88, 104), depth=(1, 2), kernel_size=kernels, expand_ratio=(3, 4), stride=1, se=True),
        ),
        head_width=(256, 320),
        head_expand_ratio=4,
    )

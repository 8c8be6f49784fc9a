"""The space of AttentiveNAS (Table 7 of its paper), which AlphaNet shares: 4.4e11 sub-networks, 203 to 1939 MMACs."""

from __future__ import annotations

from nas2edge.space import SearchSpace, StageSpace


def attentivenas() -> SearchSpace:
    """Returns the space: Conv, MBConv-1 to MBConv-7, MBPool; resolutions 192 to 288; swish."""
    return SearchSpace(
        name="attentivenas",
        image_size=224,
        resolution=(192, 224, 256, 288),
        num_classes=1000,
        stem_width=(16, 24),
        stages=(
            _stage((16, 24), (1, 2), expand_ratio=(1,), stride=1),
            _stage((24, 32), (3, 4, 5), stride=2),
            _stage((32, 40), (3, 4, 5, 6), stride=2, se=True),
            _stage((64, 72), (3, 4, 5, 6), stride=2),
            _stage((112, 120, 128), (3, 4, 5, 6, 7, 8), stride=1, se=True),
            _stage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), expand_ratio=(6,), stride=2, se=True),
            _stage((216, 224), (1, 2), expand_ratio=(6,), stride=1, se=True),
        ),
        head_width=(1792, 1984),
        head_expand_ratio=6,
    )


def _stage(
    width: tuple[int, ...],
    depth: tuple[int, ...],
    *,
    stride: int,
    se: bool = False,
    expand_ratio: tuple[int, ...] = (4, 5, 6),
) -> StageSpace:
    return StageSpace(width=width, depth=depth, kernel_size=(3, 5), expand_ratio=expand_ratio, stride=stride, se=se)

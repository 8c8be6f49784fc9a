"""Sub-networks of AttentiveNAS's space that were published with their ImageNet accuracy, by name.

Figures as published, in the README of facebookresearch/AlphaNet (AlphaNet: Wang et al., ICML 2021; the networks were
found by AttentiveNAS: Wang et al., CVPR 2021). They hold for the published weights, which are not shipped.

>>> find_published("alphanet-a0").top1
77.87
"""

from __future__ import annotations

from dataclasses import dataclass

from nas2edge.errors import UnknownNameError
from nas2edge.space import SubnetConfig

SPACE = "attentivenas"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNet:
    """A network with a published accuracy.

    Args:
        name: What `--subnet` calls it.
        top1: ImageNet validation top-1 in percent, of the AlphaNet supernet.
        subnet: Its configuration.
    """

    name: str
    top1: float
    subnet: SubnetConfig


def find_published(name: str) -> PublishedNet:
    """Returns a published network by name.

    Raises:
        UnknownNameError: There is no such network.
    """
    by_name = {net.name: net for net in ALPHANET}
    if name not in by_name:
        raise UnknownNameError("published network", name, by_name)
    return by_name[name]


def _net(
    name: str, top1: float, resolution: int, widths: tuple[int, int, int], depth: str, kernel: str, expand: str
) -> PublishedNet:
    # All published networks share the widths that are filled in here.
    wide6, wide7, head = widths
    return PublishedNet(
        name=name,
        top1=top1,
        subnet=SubnetConfig(
            resolution=resolution,
            width=(16, 16, 24, 32, 64, 112, wide6, wide7, head),
            depth=tuple(map(int, depth)),
            kernel_size=tuple(map(int, kernel)),
            expand_ratio=tuple(map(int, expand)),
        ),
    )


ALPHANET = (
    _net("alphanet-a0", 77.87, 192, (192, 216, 1792), "1333331", "3333333", "1444466"),
    _net("alphanet-a1", 78.94, 224, (192, 216, 1984), "1333331", "3335353", "1444466"),
    _net("alphanet-a2", 79.20, 224, (200, 224, 1984), "1333341", "3333353", "1454466"),
    _net("alphanet-a3", 79.41, 224, (208, 224, 1984), "2334351", "3335333", "1444466"),
    _net("alphanet-a4", 80.01, 256, (192, 216, 1984), "1334351", "3335353", "1445466"),
    _net("alphanet-a5-small", 80.29, 256, (208, 216, 1984), "1334451", "3333353", "1445466"),
    _net("alphanet-a5-base", 80.62, 288, (200, 216, 1984), "2343351", "3355333", "1444566"),
    _net("alphanet-a6", 80.78, 288, (216, 224, 1984), "1334461", "3333353", "1465466"),
)

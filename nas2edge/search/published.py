"""Accuracy of AttentiveNAS networks without any weights: a curve through the published points of AlphaNet.

Eight networks of this space have a published ImageNet top-1 (AlphaNet: Wang et al., ICML 2021, and the README of
facebookresearch/AlphaNet). That is too few for more than one slope, so the estimate is a curve over
multiply-accumulates,

    top-1 = a - b * MACs ** -0.75

fitted by least squares; it rises everywhere, and is held at its last value beyond the largest published network, as
nothing is known there. What follows from that:

* It says what a *well-chosen* network of these MACs reaches. Leaving each published network out in turn, it is off by
  0.08 points (root mean square) and 0.14 at most; a badly proportioned network may lie points below it.
* It cannot tell two networks of equal MACs apart. So that a search does not choose among them at random, a network
  loses 0.08 points, the curve's own error, for each unit of distance to the published networks around its MACs, where
  a uniformly random network lies at about distance 1. That is a preference for known proportions, not a measurement.

>>> accuracy = PublishedAccuracy(load_space("attentivenas"))
>>> accuracy(codes)  # top-1 in percent, shape (n,)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count_macs
from nas2edge.errors import InputError
from nas2edge.space import Codes, SearchSpace
from nas2edge.spaces import load_space
from nas2edge.spaces.published import ALPHANET

SOURCE = "published-points"
SPACE = "attentivenas"
EXPONENT = -0.75
_GRID = 256


class PublishedAccuracy:
    """A function from populations to ImageNet top-1 in percent; see the module's account of what it can tell.

    Args:
        space: The AttentiveNAS space, whose published networks these are.

    Raises:
        InputError: The space is another.
    """

    def __init__(self, space: SearchSpace) -> None:
        if space != load_space(SPACE):
            raise InputError(
                f"published accuracies exist for the space {SPACE!r} only; got {space.name!r}: "
                "give a supernet of this space instead"
            )
        self._space = space
        self._macs = AdditiveMetric(space, count_macs)
        codes = space.encode(net.subnet for net in ALPHANET)
        macs = self._macs(codes)
        top1 = np.array([net.top1 for net in ALPHANET])
        residuals = _left_out_residuals(macs, top1)
        self.rms_error = float(np.sqrt((residuals**2).mean()))
        self.max_error = float(np.abs(residuals).max())
        # A grid over log MACs holds the curve and the published genes between which a network is placed.
        self._log_macs = np.linspace(np.log(macs[0]), np.log(macs[-1]), _GRID)
        self._curve = _design(np.exp(self._log_macs)) @ _fit(macs, top1)
        scaled = self._scaled(codes)
        self._genes = np.stack([np.interp(self._log_macs, np.log(macs), gene) for gene in scaled.T], axis=1)
        random = space.sample(4096, np.random.default_rng(0))
        self._unit = float(np.median(self._raw_distance(random, np.log(self._macs(random)))))

    def __call__(self, codes: Codes) -> npt.NDArray[np.float64]:
        """Returns the estimated top-1 in percent: shape (n,)."""
        log_macs = np.log(self._macs(codes))
        curve = np.interp(log_macs, self._log_macs, self._curve)
        return np.asarray(curve - self.rms_error * self._raw_distance(codes, log_macs) / self._unit)

    def distance(self, codes: Codes) -> npt.NDArray[np.float64]:
        """Returns how far networks are from the published ones around their MACs; a random one is at about 1."""
        return self._raw_distance(codes, np.log(self._macs(codes))) / self._unit

    def _raw_distance(self, codes: Codes, log_macs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        low, high = self._log_macs[0], self._log_macs[-1]
        nearest = np.clip(np.rint((log_macs - low) / (high - low) * (_GRID - 1)), 0, _GRID - 1).astype(np.int64)
        return np.asarray(np.abs(self._scaled(codes) - self._genes[nearest]).mean(axis=1))

    def _scaled(self, codes: Codes) -> npt.NDArray[np.float64]:
        return codes / np.maximum(self._space.cardinalities - 1, 1)


def _design(macs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # Scaled to units of 300 MMACs, so that both columns are of a size.
    return np.stack([np.ones_like(macs), -((macs / 300e6) ** EXPONENT)], axis=1)


def _fit(macs: npt.NDArray[np.float64], top1: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.lstsq(_design(macs), top1, rcond=None)[0])


def _left_out_residuals(macs: npt.NDArray[np.float64], top1: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    residuals = np.zeros(len(macs))
    for i in range(len(macs)):
        others = np.arange(len(macs)) != i
        residuals[i] = (_design(macs[[i]]) @ _fit(macs[others], top1[others]))[0] - top1[i]
    return residuals

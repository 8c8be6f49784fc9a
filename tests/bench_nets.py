"""Small networks for tests of timing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from nas2edge.graph import chain_model, random_weights
from nas2edge.plan import LayerSpec


def chain(folder: Path, blocks: int, *, side: int = 8) -> Path:
    """Writes a network of equal blocks; a fraction of a millisecond."""
    layers = [
        LayerSpec(name=f"chain.{i}", op="mbconv", hw_in=side, hw_out=side, in_chs=16, mid_chs=16, out_chs=16,
                  kernel_size=3, stride=1, act="relu", shortcut="identity")
        for i in range(blocks)
    ]  # fmt: skip
    path = folder / f"chain{blocks}-{side}.onnx"
    onnx.save(chain_model(layers, random_weights(layers, np.random.default_rng(0))), path)
    return path

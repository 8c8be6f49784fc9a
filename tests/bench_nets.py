"""Small networks for tests of timing, and how one might have started."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from nas2edge.bench.measure import Start
from nas2edge.graph import chain_model, random_weights
from nas2edge.plan import LayerSpec

STABLE = {"runs": 20, "seconds": 0.1, "stable": True}
START = Start(runtime="ONNX Runtime 9", shape=(1, 16, 8, 8), dtype="float32", load_s=0.01, first_s=0.002,
              warm_up=STABLE, peak_bytes=3_000_000, before_bytes=1_000_000)  # fmt: skip


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

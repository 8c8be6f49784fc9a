"""Folders of images that any network tells apart."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_bright_and_dark(root: Path, *, each: int, height: int, width: int, suffix: str = "png") -> Path:
    """Writes noisy bright and dark images to `root/train/bright` and `root/train/dark`, and returns the root."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 180), ("dark", 60)):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for i in range(each):
            pixels = np.clip(rng.normal(level, 30, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.{suffix}")
    return root

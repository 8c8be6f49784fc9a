"""Makes a training run the embedded supernet: float16 weights, its images and its log, under nas2edge/zoo/<name>/.

Usage: python scripts/embed_supernet.py runs/tiny tiny
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from nas2edge.supernet.checkpoint import load_supernet, save_supernet
from nas2edge.supernet.weights_file import IMAGES_NAME, WEIGHTS_NAME
from nas2edge.train.loop import LOG_NAME

ZOO = Path(__file__).resolve().parents[1] / "nas2edge" / "zoo"


def main(run: Path, name: str) -> None:
    """Writes the zoo entry, replacing an older one of that name."""
    loaded = load_supernet(str(run))
    folder = ZOO / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in (IMAGES_NAME, LOG_NAME):
        shutil.copyfile(run / file, folder / file)
    save_supernet(
        folder / WEIGHTS_NAME,
        loaded.model,
        classes=loaded.info.classes,
        preprocess=loaded.info.preprocess,
        trained=loaded.info.trained,
        dtype=torch.float16,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

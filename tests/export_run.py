"""A training run as the export finds it: a supernet with random weights, and images beside it."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nas2edge.spaces import load_space
from nas2edge.supernet.checkpoint import save_supernet
from nas2edge.supernet.elastic import Supernet
from nas2edge.supernet.weights_file import Preprocess

CLASSES = tuple("abcdefghij")
PREPROCESS = Preprocess(image_size=32, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))


def write_run(folder: Path, *, seed: int = 0, images: int = 4) -> Path:
    """Writes supernet.safetensors and images.zip, with so many images of each class in each split."""
    torch.set_num_threads(1)  # two are slower than one for such a network, and far slower beside another process
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = Supernet(load_space("tiny"))
    for name, parameter in model.named_parameters():
        if name.endswith(".bn.weight") or name.endswith(".bn.bias"):
            torch.nn.init.uniform_(parameter, 0.2, 0.8)
    save_supernet(folder / "supernet.safetensors", model, classes=CLASSES, preprocess=PREPROCESS, trained={})
    write_images(folder / "images.zip", ("calibration", "validation"), images=images)
    return folder


def write_images(path: Path, splits: tuple[str, ...], *, images: int = 4) -> Path:
    """Writes a zip file of random images."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for split in splits:
            for name in CLASSES:
                for i in range(images):
                    file = io.BytesIO()
                    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(file, "PNG")
                    archive.writestr(f"{split}/{name}/{i:03d}.png", file.getvalue())
    return path

"""Augmentation of a batch held as one tensor: random flip, and random crop from a padded border."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def flip_and_crop(images: Tensor, *, padding: int, generator: torch.Generator) -> Tensor:
    """Flips half of the images left to right, and shifts each by up to `padding` pixels, reflecting at the border.

    Args:
        images: Normalised images (N, C, H, W).
        padding: Greatest shift in pixels.
        generator: Source of randomness.
    """
    n, _, height, width = images.shape
    flip = torch.rand(n, generator=generator) < 0.5
    padded = F.pad(images, (padding,) * 4, mode="reflect") if padding else images
    top = torch.randint(0, 2 * padding + 1, (n, 1), generator=generator)
    left = torch.randint(0, 2 * padding + 1, (n, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.where(flip[:, None], torch.arange(width - 1, -1, -1), torch.arange(width))
    index = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

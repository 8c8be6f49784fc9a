"""Augmentation of a batch held as one tensor: random flip, and random crop from a padded border."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def flip_and_crop(images: Tensor, *, padding: int, generator: torch.Generator, rank: int = 0, world: int = 1) -> Tensor:
    """Flips half of the images left to right, and shifts each by up to `padding` pixels, reflecting at the border.

    Args:
        images: Normalised images (N, C, H, W), on any device.
        padding: Greatest shift in pixels.
        generator: Source of randomness on the CPU, drawn from for all processes' images.
        rank: Number of the process whose images these are.
        world: Processes that share the batch, each with as many images.
    """
    n, _, height, width = images.shape
    flip = torch.rand(n * world, generator=generator)[rank::world] < 0.5
    padded = F.pad(images, (padding,) * 4, mode="reflect") if padding else images
    top, left = (torch.randint(0, 2 * padding + 1, (n * world, 1), generator=generator)[rank::world] for _ in range(2))
    rows = top + torch.arange(height)
    columns = left + torch.where(flip[:, None], torch.arange(width - 1, -1, -1), torch.arange(width))
    index = (torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :])
    taken = tuple(part.to(images.device, non_blocking=True) for part in index)
    return padded.permute(0, 2, 3, 1)[taken].permute(0, 3, 1, 2)

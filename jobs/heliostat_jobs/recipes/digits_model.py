"""A small convolutional network for 8 x 8 images.

This file travels with the model's weights (`code/digits_model.py` in the artifact), so it imports nothing but torch.
"""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 10


class DigitsCNN(nn.Module):
    """Two convolutions, one pooling, two linear layers; about 80,000 parameters at width 32."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(2 * width * 16, 2 * width), nn.ReLU(), nn.Linear(2 * width, CLASSES)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, (batch, 1, 8, 8) -> (batch, 10)."""
        logits: torch.Tensor = self.head(self.features(images))
        return logits


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images that the model classifies right, (n, 1, 8, 8) and (n,) -> scalar."""
    model.eval()
    right = (model(images).argmax(dim=1) == labels).float().mean().item()
    model.train()
    return float(right)

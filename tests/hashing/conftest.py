"""Small data that a hashing network can learn in a second."""

import pytest
import torch
from torch import Tensor


def toy_images(labels: Tensor, size: int = 16, channels: int = 1, seed: int = 0) -> Tensor:
    """uint8 (N, C, size, size): dim noise; each class (or each label of a multi-hot row) has its own bright bar."""
    random = torch.Generator().manual_seed(seed)
    hot = labels if labels.ndim == 2 else torch.nn.functional.one_hot(labels)  # (N, L)
    images = torch.randint(0, 100, (len(labels), channels, size, size), generator=random)
    for item, label in hot.nonzero().tolist():
        images[item, :, 4 * label : 4 * label + 3, 1 + label :] += 140
    return images.to(torch.uint8)


@pytest.fixture(scope="session")
def toy() -> tuple[Tensor, Tensor]:
    """96 images of 3 classes."""
    labels = torch.arange(96) % 3
    return toy_images(labels), labels


@pytest.fixture(scope="session")
def multi_label_toy() -> tuple[Tensor, Tensor]:
    """96 images with one or two of 4 labels each."""
    first = torch.arange(96) % 4
    second = torch.arange(96) // 4 % 4
    labels = torch.nn.functional.one_hot(first) | torch.nn.functional.one_hot(second)  # (96, 4)
    return toy_images(labels, seed=1), labels

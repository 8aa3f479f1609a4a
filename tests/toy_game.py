"""A small game on images that a network can tell apart, for the tests of `pplkit.game`."""

import torch
from torch import Tensor

from pplkit.config import PPLConfig
from pplkit.data import ImageSet
from pplkit.game import Game

TINY = {"widths": (4, 4, 4, 4), "batch_size": 16, "autocast": False}


def toy(count: int = 48, channels: int = 1, classes: int = 3) -> ImageSet:
    """Noise, with a bright bar at a height that tells the class."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 100, (count, channels, 16, 16), generator=random)
    for item, label in enumerate(labels.tolist()):
        images[item, :, label : label + 4] += 140
    return ImageSet(images.to(torch.uint8), labels)


def start(channels: int = 1, **settings: object) -> Game:
    data = toy(channels=channels)
    return Game(PPLConfig(**(TINY | settings)), data.images, data.labels)


def gradients(network: torch.nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}

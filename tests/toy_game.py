"""A small game on images that a network can tell apart, for the tests of `pplkit.game` and `pplkit.training`."""

import torch
from torch import Tensor

from pplkit.config import PPLConfig
from pplkit.data import ImageSet
from pplkit.game import Game
from pplkit.training import PPLRun, train_ppl

TINY = {"widths": (4, 4, 4, 4), "batch_size": 16, "autocast": False}
SHORT = TINY | {"warmup_steps": 3, "steps": 5, "checkpoint_every": 2}


def toy(count: int = 48, channels: int = 1, classes: int = 3, size: int = 16) -> ImageSet:
    """Noise, with a bright bar at a height that tells the class."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 100, (count, channels, size, size), generator=random)
    for item, label in enumerate(labels.tolist()):
        images[item, :, label : label + 4] += 140
    return ImageSet(images.to(torch.uint8), labels)


def start(channels: int = 1, **settings: object) -> Game:
    data = toy(channels=channels)
    return Game(PPLConfig(**(TINY | settings)), data.images, data.labels)


def gradients(network: torch.nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}


def train(**settings: object) -> PPLRun:
    return train_ppl(toy(), PPLConfig(**(SHORT | settings)), progress=False)


def weights(run: PPLRun) -> list[Tensor]:
    return [v for network in (run.generator, *run.surrogates) for v in network.state_dict().values()]


def same(first: PPLRun, second: PPLRun) -> bool:
    pairs = zip(weights(first), weights(second), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and first.history == second.history

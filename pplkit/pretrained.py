"""The trained generator and victims that come with the project, so that notebooks open at once.

Made by `python -m pplkit.experiments.table1 --dataset fashion-mnist --seeds 0 1 2 --ship data/checkpoints/fashion-mnist`.
"""

from pplkit import hashing
from pplkit.data import embedded
from pplkit.generator import PerturbationGenerator
from pplkit.paper import METHODS, TRAIN_DOMAINS


def generator() -> PerturbationGenerator:
    """The generator of seed 0, trained on 10,000 Fashion-MNIST images at ε = 0.3; its settings are in `.metadata`."""
    return PerturbationGenerator.load(embedded("checkpoints", "fashion-mnist", "generator.safetensors"))


def victim(method: str, train_domain: str = "clean") -> hashing.Victim:
    """A 16-bit victim of seed 0, trained on the same 10,000 images.

    Args:
        method: "adsh" or "dsdh".
        train_domain: "clean", or "adversarial" (trained on the images as `generator` protects them).

    Raises:
        ValueError: anything else.
    """
    if method not in METHODS or train_domain not in TRAIN_DOMAINS:
        raise ValueError(f"method must be one of {METHODS} and train_domain one of {tuple(TRAIN_DOMAINS)}, "
                         f"got {method!r} and {train_domain!r}")
    return hashing.load(embedded("checkpoints", "fashion-mnist", f"{method}-{train_domain}-16.safetensors"))

"""The trained generators and victims that come with the project, so that notebooks open at once.

Made by `python -m pplkit.experiments.table1 --dataset fashion-mnist --seeds 0 1 2` with, for

- "reference": `--regime reference --backbone two_conv --ship data/checkpoints/fashion-mnist`
- "shortcut": `--regime shortcut --ship data/checkpoints/fashion-mnist/shortcut --ship-generators
  data/checkpoints/fashion-mnist/shortcut` (the first seed's generator is then there twice: generator-0 is kept)
- "several": `--ship-generators data/checkpoints/fashion-mnist/several`
"""

from collections.abc import Sequence

from pplkit import hashing
from pplkit.data import embedded
from pplkit.generator import PerturbationGenerator
from pplkit.paper import BITS, METHODS, TRAIN_DOMAINS

GENERATORS = {("reference", 0): ("generator.safetensors",),
              **{(regime, seed): (regime, f"generator-{seed}.safetensors") for regime in ("shortcut", "several")
                 for seed in (0, 1, 2)}}
VICTIMS = {"reference": (), "shortcut": ("shortcut",)}  # their folder


def generator(regime: str = "reference", seed: int = 0) -> PerturbationGenerator:
    """A generator of our tables, trained on 10,000 Fashion-MNIST images at ε = 0.3; its settings are in `.metadata`.

    Args:
        regime: how its game was played: "reference" (`PPLConfig.reference`), "shortcut" (`PPLConfig.shortcut`, surrogates
            "two_conv_3x3"), or "several" (`PPLConfig.several`, that of our Table 1).
        seed: 0; of "shortcut" and "several" also 1 and 2.

    Raises:
        ValueError: another one.
    """
    if (regime, seed) not in GENERATORS:
        raise ValueError(f"there is no generator of {regime!r} with seed {seed!r}: choose one of {list(GENERATORS)}")
    return PerturbationGenerator.load(embedded("checkpoints", "fashion-mnist", *GENERATORS[regime, seed]))


def victim(method: str, train_domain: str = "clean", bits: int = 16, regime: str = "reference") -> hashing.Victim:
    """A victim of seed 0, trained on the same 10,000 images.

    Args:
        method: "adsh" or "dsdh".
        train_domain: "clean", or "adversarial" (trained on the images as `generator(regime)` protects them).
        bits: code length, 8, 12, 16 or 24.
        regime: "reference" (backbone "two_conv") or "shortcut" ("two_conv_3x3").

    Raises:
        ValueError: anything else.
    """
    if method not in METHODS or train_domain not in TRAIN_DOMAINS or bits not in BITS:
        raise ValueError(f"method must be one of {METHODS}, train_domain one of {tuple(TRAIN_DOMAINS)} and bits one of {BITS}, "
                         f"got {method!r}, {train_domain!r} and {bits!r}")
    if regime not in VICTIMS:
        raise ValueError(f"there are no victims of {regime!r}: choose one of {list(VICTIMS)}")
    name = f"{method}-{train_domain}-{bits}.safetensors"
    return hashing.load(embedded("checkpoints", "fashion-mnist", *VICTIMS[regime], name))


def victims(bits: Sequence[int] = BITS) -> dict[tuple[str, str, int], hashing.Victim]:
    """All victims of these code lengths: ("ADSH", "clean", 16) -> victim, the 16-bit ones first if they are among them."""
    return {(method.upper(), domain, length): victim(method, domain, length)
            for length in sorted(bits, key=lambda b: (b != 16, b)) for method in METHODS for domain in TRAIN_DOMAINS}

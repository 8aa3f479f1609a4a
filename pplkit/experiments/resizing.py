"""What is left of the protection when a searcher shrinks a large picture, and what a coarse pattern changes about it.

    python -m pplkit.experiments.resizing

Fashion-MNIST's images, enlarged four times, are protected by the generator that comes with pplkit (learned on 28 × 28
pixels): at their own size, and with `pattern_size` (see `pplkit.photos.picture_pattern`). The searcher shrinks everything to
28 × 28 and searches with the 16-bit victims that come with pplkit, trained on clean images. Writes
`data/results/resizing-DATASET.json`.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from pplkit import device as devices
from pplkit import pretrained
from pplkit.budget import format_epsilon
from pplkit.data import ImageSet, load
from pplkit.experiments.common import command, how_run, keep_stored, once, over_seeds, parse, parser, slug, summary
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import Victim
from pplkit.paper import METHODS
from pplkit.photos import Picture, protect_picture
from pplkit.retrieval import MeanAveragePrecision, mean_average_precision
from pplkit.scenarios import SCENARIOS
from pplkit.storage import save_json

ENLARGED = 4
EPSILON = 0.3
PATTERN_SIZES = (None, 56, 28)


def resized(images: Tensor, size: int, mode: str) -> Tensor:
    """uint8 (N, C, H, W) -> uint8 (N, C, size, size), antialiased."""
    made = interpolate(images.float(), (size, size), mode=mode, antialias=True)  # (N, C, size, size)
    return (made + 0.5).clamp(0, 255).to(torch.uint8)


def protected(images: Tensor, generator: PerturbationGenerator, epsilon: float, pattern_size: int | None) -> Tensor:
    """Every picture as `pplkit protect` does it, uint8 (N, C, H, W)."""
    rows = [protect_picture(Picture(image[None]), generator, epsilon, pattern_size=pattern_size).pixels for image in images]
    return torch.cat(rows)


def run_seed(dataset: str, root: str | None, seed: int, epsilon: float, counts: tuple[int, int], work: Path,
             device: str) -> dict[str, dict]:
    """"pattern size" -> method -> scenario -> mAP and interval; `counts`: queries and database images."""
    split = load(dataset, root, seed=seed)
    parts: list[ImageSet] = []
    for part, count in zip((split.query, split.database), counts, strict=True):
        if not 1 <= count <= len(part):
            raise ValueError(f"{count} images were asked for of a part of {dataset} that has {len(part)}: give 1 to as many")
        parts.append(part.subset(torch.arange(count) * len(part) // count))  # spread over the whole part
    side = parts[0].images.shape[-1]
    large = [resized(part.images, ENLARGED * side, "bicubic") for part in parts]
    device = devices.resolve(device)
    generator = pretrained.generator().to(device)
    victims = {method: pretrained.victim(method) for method in METHODS}
    for victim in victims.values():
        victim.network.to(device)
    key = {"split": split.manifest, "epsilon": epsilon, "counts": counts, "generator": generator.metadata,
           "victims": {method: victim.metadata for method, victim in victims.items()}}
    found = {}
    for pattern_size in tqdm(PATTERN_SIZES, desc=f"pattern sizes, seed {seed}"):
        def measure(pattern_size: int | None = pattern_size) -> dict:
            published = [protected(images, generator, epsilon, pattern_size) for images in large]
            return {"methods": {method: summary(_scenarios(victim, side, large, published, parts))
                                for method, victim in victims.items()}}

        step = f"{'own' if pattern_size is None else pattern_size}-{seed}.json"
        found[str(pattern_size)] = once(work / f"resizing-{slug(dataset)}" / step, measure, key, device)
    return found


def _scenarios(victim: Victim, side: int, clean: list[Tensor], published: list[Tensor],
               parts: list[ImageSet]) -> dict[str, MeanAveragePrecision]:
    codes = {domain: [victim.encode(resized(images, side, "bilinear")) for images in pictures]
             for domain, pictures in (("C", clean), ("A", published))}
    query, database = (part.labels for part in parts)
    return {scenario: mean_average_precision(codes[scenario[0]][0], query, codes[scenario[-1]][1], database)
            for scenario in SCENARIOS}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, store."""
    options = parser(__doc__.splitlines()[0])
    options.set_defaults(dataset="fashion-mnist-mini")
    options.add_argument("--epsilon", type=float, default=EPSILON, help="budget in pixel units")
    options.add_argument("--queries", type=int, default=500)
    options.add_argument("--database", type=int, default=2000)
    asked = parse(options, arguments)
    name = f"resizing-{slug(asked.dataset)}{'-fast' if asked.fast else ''}.json"
    counts = (20, 40) if asked.fast else (asked.queries, asked.database)
    keep_stored(options, asked.out / name, asked.seeds, budget=asked.epsilon, same={"dataset": asked.dataset, "counts": counts})
    seeds = {seed: run_seed(asked.dataset, asked.root, seed, asked.epsilon, counts, asked.work, asked.device)
             for seed in asked.seeds}
    cells = [{"pattern_size": size, "method": method, "scenario": scenario,
              **over_seeds({seed: found[str(size)]["methods"][method][scenario] for seed, found in seeds.items()})}
             for size in PATTERN_SIZES for method in METHODS for scenario in SCENARIOS]
    save_json(asked.out / name, {
        "what": f"enlarged {ENLARGED} times, protected, shrunk again and searched, {counts[0]} queries in {counts[1]} "
                f"images, epsilon {format_epsilon(asked.epsilon)}, 16 bits, network codes",
        "dataset": asked.dataset, "counts": counts,
        "runs": {str(seed): how_run(found) for seed, found in seeds.items()}, "cells": cells})
    for pattern_size in PATTERN_SIZES:
        for method in METHODS:
            line = {c["scenario"]: c["mAP"] for c in cells if (c["pattern_size"], c["method"]) == (pattern_size, method)}
            shown = "own size" if pattern_size is None else f"{pattern_size} pixels"
            print(f"pattern at {shown:9}  {method}  " + "  ".join(f"{key} {value:.3f}" for key, value in line.items()))


if __name__ == "__main__":
    command(main)

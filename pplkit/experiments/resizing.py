"""What is left of the protection when a searcher shrinks a large picture, and what a coarse pattern changes about it.

    python -m pplkit.experiments.resizing

Fashion-MNIST's images, enlarged four times, are protected by the generator that comes with pplkit (learned on 28 × 28
pixels): at their own size, and with `pattern_size` (see `pplkit.photos.picture_pattern`). The searcher shrinks everything to
28 × 28 and searches with the 16-bit victims that come with pplkit, trained on clean images. Writes
`data/results/resizing-DATASET.json`.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from pplkit import pretrained
from pplkit.budget import format_epsilon
from pplkit.data import ImageSet, load
from pplkit.experiments.common import parser, slug
from pplkit.generator import PerturbationGenerator
from pplkit.paper import METHODS
from pplkit.photos import Picture, protect_picture
from pplkit.retrieval import mean_average_precision
from pplkit.scenarios import SCENARIOS
from pplkit.storage import provenance, save_json

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


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, store."""
    options = parser(__doc__.splitlines()[0])
    options.set_defaults(dataset="fashion-mnist-mini")
    options.add_argument("--epsilon", type=float, default=EPSILON, help="budget in pixel units")
    options.add_argument("--queries", type=int, default=500)
    options.add_argument("--database", type=int, default=2000)
    asked = options.parse_args(arguments)
    split = load(asked.dataset, asked.root, seed=asked.seeds[0])
    counts = (20, 40) if asked.fast else (asked.queries, asked.database)
    parts: list[ImageSet] = []
    for part, count in zip((split.query, split.database), counts, strict=True):
        step = max(1, len(part) // count)
        parts.append(part.subset(torch.arange(0, len(part), step)[:count]))
    side = parts[0].images.shape[-1]
    large = [resized(part.images, ENLARGED * side, "bicubic") for part in parts]
    generator = pretrained.generator()
    victims = {method: pretrained.victim(method) for method in METHODS}
    cells = []
    for pattern_size in tqdm(PATTERN_SIZES, desc="pattern sizes"):
        published = [protected(images, generator, asked.epsilon, pattern_size) for images in large]
        for method, victim in victims.items():
            codes = {"C": [victim.encode(resized(images, side, "bilinear")) for images in large],
                     "A": [victim.encode(resized(images, side, "bilinear")) for images in published]}
            for scenario in SCENARIOS:
                query, database = codes[scenario[0]][0], codes[scenario[-1]][1]
                value = mean_average_precision(query, parts[0].labels, database, parts[1].labels)
                low, high = value.interval()
                cells.append({"pattern_size": pattern_size, "method": method, "scenario": scenario,
                              "mAP": round(float(value.expected), 4), "low": round(low, 4), "high": round(high, 4)})
    name = f"resizing-{slug(asked.dataset)}{'-fast' if asked.fast else ''}.json"
    save_json(asked.out / name, {
        "what": f"protected at {ENLARGED * side} pixels, shrunk to {side} and searched, {counts[0]} queries in {counts[1]} "
                f"images, epsilon {format_epsilon(asked.epsilon)}, 16 bits, network codes",
        "run": provenance(), "cells": cells})
    for pattern_size in PATTERN_SIZES:
        for method in METHODS:
            line = {c["scenario"]: c["mAP"] for c in cells if (c["pattern_size"], c["method"]) == (pattern_size, method)}
            shown = "own size" if pattern_size is None else f"{pattern_size} pixels"
            print(f"pattern at {shown:9}  {method}  " + "  ".join(f"{key} {value:.3f}" for key, value in line.items()))


if __name__ == "__main__":
    main()

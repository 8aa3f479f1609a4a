"""Fig. 7: clean images and their protected counterparts, one query image per class, at several ε.

    python -m pplkit.experiments.pairs --dataset fashion-mnist --seeds 0

The images are the first query of each class, not chosen by eye. The generator is that of `table1` with the same `--regime` and
`--backbone`; other ε scale its output. Writes `data/results/pairs-DATASET.json` (PSNR, SSIM and largest change of every
image shown) and a figure.
"""

import dataclasses
import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pplkit import plots, quality
from pplkit.budget import format_epsilon, perturbation_norm, protect
from pplkit.data import ImageSet, load
from pplkit.experiments.common import add_colour, command, entitle, keep_stored, networks, parse, parser, place, save_figure
from pplkit.experiments.games import add_game, asked_game, configuration, game_suffix, generator_of, other_game
from pplkit.storage import provenance, save_json

EPSILONS = (0.05, 0.1, 0.15, 0.3)


def first_of_each_class(images: ImageSet) -> Tensor:
    """Positions of the first image of every class, int64 (K,)."""
    return torch.stack([(images.labels == label).nonzero()[0, 0] for label in images.labels.unique()])


def figure(rows: dict[str, Tensor]) -> Figure:
    """A row of images per entry.

    Args:
        rows: title -> uint8 (K, C, H, W), all of one shape.
    """
    count = len(next(iter(rows.values())))
    drawn = Figure(figsize=(1 + 0.95 * count, 1.05 * len(rows)), layout="constrained")
    axes = drawn.subplots(len(rows), count, squeeze=False)
    for line, (title, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=True):
            pixels = image.permute(1, 2, 0).numpy()  # (H, W, C)
            ax.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            ax.set_xticks([])
            ax.set_yticks([])
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=11)
    return drawn


def _number(value: Tensor) -> float | None:
    """For JSON; None for the infinite PSNR of an unchanged image."""
    return round(float(value), 4) if value.isfinite() else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.inf


def main(arguments: list[str] | None = None) -> None:
    """Protect the images at every ε, store figure and numbers."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--trained-at", type=float, help="budget of the generator (default: the paper's)")
    options.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS), help="budgets shown")
    add_game(options)
    add_colour(options, of="the surrogates")
    asked = parse(options, arguments)
    if len(asked.seeds) > 1:
        options.error(f"--seeds: the figure has one generator, got {asked.seeds}")
    seed = asked.seeds[0]
    how = asked_game(options, asked)
    name = (f"pairs-{place(asked.dataset, asked.backbone)}{game_suffix(how['regime'], how['game'])}"
            f"{'-fast' if asked.fast else ''}")
    config = configuration(asked.dataset, seed, asked.trained_at, asked.fast, asked.backbone, how["regime"], how["game"])
    keep_stored(options, asked.out / f"{name}.json", asked.seeds, dict(asked.load),
                same={"dataset": asked.dataset, "seed": seed, "generator": dataclasses.asdict(config)},
                generators=asked.generators, epsilon=asked.epsilons)
    split = load(asked.dataset, asked.root, seed=seed, **dict(asked.load))
    run, _, taken = generator_of(asked.dataset, split, seed, asked.trained_at, asked.work, asked.device, asked.fast,
                                 asked.backbone, dict(asked.load), **how)
    chosen = first_of_each_class(split.query)
    clean = split.query.images[chosen]  # (K, C, H, W)
    shown, cells = {"clean": clean}, []
    for epsilon in asked.epsilons:
        protected = protect(clean, run.generator, epsilon, config.norm)
        shown["ε = " + format_epsilon(epsilon).replace(" ", "\n")] = protected
        measured = {"psnr": quality.psnr(clean, protected), "ssim": quality.ssim(clean, protected),
                    "linf": perturbation_norm(clean, protected)}
        cells += [{"epsilon": epsilon, "query": int(row), "class": split.classes[int(split.query.labels[row])],
                   **{key: _number(values[k]) for key, values in measured.items()}}
                  for k, row in enumerate(chosen)]
    what = (f"Fig. 7 on {asked.dataset}: first query of each class, trained at {format_epsilon(config.epsilon)} with "
            f"{networks(config.per_surrogate('backbone'))}{other_game(asked.regime, how['game'])}")
    save_json(asked.out / f"{name}.json", {
        "what": what,
        "dataset": asked.dataset, "regime": asked.regime, "backbone": asked.backbone, "game": how["game"],
        "taken": {str(seed): taken},
        "seed": seed, "load": dict(asked.load), "generator": dataclasses.asdict(config), "run": provenance(asked.device),
        "cells": cells})
    plots.use_style()
    drawn = figure(shown)
    entitle(drawn, what)
    save_figure(asked.out / f"{name}.png", drawn, dpi=110)
    for epsilon in asked.epsilons:
        at = [cell for cell in cells if cell["epsilon"] == epsilon]
        mean = {key: _mean([cell[key] for cell in at if cell[key] is not None]) for key in ("psnr", "ssim", "linf")}
        print(f"{format_epsilon(epsilon)}: PSNR {mean['psnr']:.1f} dB, SSIM {mean['ssim']:.2f}, largest {mean['linf']:.3f}")


if __name__ == "__main__":
    command(main)

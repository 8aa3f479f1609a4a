"""Fig. 5: victims whose training set is a mixture of clean and protected images, 16 bits, all four scenarios.

    python -m pplkit.experiments.ratio --dataset fashion-mnist --seeds 0

Share r: round(r N) of the N training images are replaced by their protected versions, drawn by the seed; the sets are nested,
so that two points of a curve differ by the share alone. Generator and the victims of r = 0 and r = 1 are those of `table1`
with the same `--regime` and `--backbone`. Every victim is kept under `--work`. Writes `data/results/ratio-DATASET.json`
and a figure.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from pplkit import plots
from pplkit.budget import format_epsilon
from pplkit.config import PAPER
from pplkit.data import ImageSet, load
from pplkit.experiments.common import (
    add_colour,
    check_pretraining,
    command,
    entitle,
    exact,
    home,
    how_run,
    keep_stored,
    make_victim,
    networks,
    once,
    over_seeds,
    parse,
    parser,
    place,
    save_figure,
    summary,
)
from pplkit.experiments.games import add_game, asked_game, configuration, game_suffix, generator_of, other_game
from pplkit.experiments.table1 import trained_victim
from pplkit.paper import CROSSES, METHODS, TRAIN_DOMAINS, victim_row
from pplkit.scenarios import SCENARIOS, evaluate_scenarios, protect_split
from pplkit.storage import save_json

BITS = 16  # as in Fig. 5
# as in Fig. 5, from 0 to 1 in steps of 0.1, and three more where the curve jumps
SHARES = (0.0, 0.01, 0.02, 0.05, *(k / 10 for k in range(1, 11)))


def mixed(clean: ImageSet, protected: Tensor, share: float, seed: int) -> ImageSet:
    """The training set with a share of its images protected; every image keeps its place and label.

    Args:
        clean: N training images.
        protected: uint8 (N, C, H, W), the same images, protected.
        share: 0 to 1; round(share * N) images are replaced.
        seed: of the order in which images are replaced: a larger share replaces those of a smaller one, and more.

    Raises:
        ValueError: share outside [0, 1], or images of another shape.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1, got {share!r}")
    if protected.shape != clean.images.shape:
        raise ValueError(f"clean images have shape {tuple(clean.images.shape)}, protected ones {tuple(protected.shape)}: "
                         "they must be equal")
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))  # (N,)
    images = clean.images.clone()  # (N, C, H, W)
    chosen = order[:round(share * len(clean))]  # (k,)
    images[chosen] = protected[chosen]
    return dataclasses.replace(clean, images=images)


def run_seed(dataset: str, root: str | None, seed: int, epsilon: float | None, shares: Iterable[float], work: Path, device: str,
             fast: bool, backbone: str = "two_conv", options: dict[str, object] | None = None, regime: str = "reference",
             game: dict[str, object] | None = None, **how: object) -> dict[str, dict]:
    """"adsh 0.3" -> scenario -> mAP and interval (network codes), for both methods and every share.

    `regime`, `game` and `how` as for `games.generator_of`.
    """
    split = load(dataset, root, seed=seed, **(options or {}))
    config = configuration(dataset, seed, epsilon, fast, backbone, regime, game)
    check_pretraining((backbone, *config.per_surrogate("backbone")), split)
    run, folder, taken = generator_of(dataset, split, seed, epsilon, work, device, fast, backbone, options, regime, game, **how)
    twin = protect_split(split, lambda images: run.protect(images, cache=(options or {}).get("cache")))
    generator = dataclasses.asdict(run.config)
    steps = work / f"ratio-{home(dataset, backbone, options)}-{run.config.epsilon:g}{game_suffix(regime, game)}"
    steps = steps / folder.name if taken else steps
    cells = {}
    tasks = [(method, share) for method in METHODS for share in shares]
    for method, share in tqdm(tasks, desc=f"victims, seed {seed}", unit="victim"):
        train = mixed(split.train, twin.train.images, share, seed)
        where, note = {0.0: (work / f"clean-{home(dataset, backbone, options)}" / f"seed{seed}", {}),
                       1.0: (folder / "adversarial", {"generator": generator})}.get(
                           share, (folder / f"share-{share:g}", {"generator": generator, "share": share}))

        def measure(method: str = method, train: ImageSet = train, where: Path = where, note: dict = note) -> dict:
            victim = trained_victim(method, BITS, seed, split, train, where, device, fast, backbone, **note)
            return {"scenarios": summary(evaluate_scenarios(victim, split, twin))}

        key = {"generator": generator, "split": split.manifest, "share": share, "taken": taken,
               "victim": make_victim(method, BITS, seed, device, fast, backbone, split.name).settings()}
        cells[f"{method} {exact(share)}"] = once(steps / f"{method}-{share:g}-{seed}.json", measure, key, device)
    return cells


def collect(seeds: dict[int, dict[str, dict]]) -> list[dict]:
    """One row per method, share and scenario: mean over seeds, the seeds' values, the envelope of their intervals."""
    rows = []
    for name in next(iter(seeds.values())):
        method, share = name.split()
        for scenario in SCENARIOS:
            found = {seed: cells[name]["scenarios"][scenario] for seed, cells in seeds.items()}
            rows.append({"method": method, "share": float(share), "scenario": scenario,
                         **over_seeds(found)})
    return rows


def figure(stored: dict) -> Figure:
    """Two panels as in Fig. 5, ADSH and DSDH: mAP of the four scenarios over the share, bands the seeds' intervals; crosses are
    the paper's Table 1, whose searchers have the shares 0 and 1, if the budget is the paper's and we have such a share.
    """
    same = stored["generator"]["epsilon"] == PAPER.get(stored["dataset"], (None,))[0]
    drawn = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = drawn.subplots(1, len(METHODS), sharey=True)
    for ax, method in zip(axes, METHODS, strict=True):
        for number, scenario in enumerate(SCENARIOS):
            line = [row for row in stored["cells"] if (row["method"], row["scenario"]) == (method, scenario)]
            x, colour = [row["share"] for row in line], plots.PALETTE[number]
            ax.plot(x, [row["mAP"] for row in line], color=colour, linestyle=plots.STYLES[number], marker="os^D"[number],
                    markersize=5, clip_on=False, label=scenario)
            ax.fill_between(x, [row["low"] for row in line], [row["high"] for row in line], color=colour, alpha=0.15)
        for share, domain in enumerate(TRAIN_DOMAINS):
            theirs = victim_row(stored["dataset"], domain, method, BITS) if same and share in x else {}
            for scenario, value in theirs.items():
                ax.plot(share, value, color=plots.PALETTE[SCENARIOS.index(scenario)], marker="x", linestyle="none",
                        markersize=7, markeredgewidth=2, clip_on=False)
        # room for the small shares
        ax.set_xscale("function", functions=(lambda share: np.sqrt(np.maximum(share, 0)), np.square))
        ticks = 0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=9)
        ax.minorticks_off()
        ax.set(title=method.upper(), xlabel="share of protected training images\n(square-root axis)", xlim=(0, 1), ylim=(0, 1))
    entitle(drawn, stored["what"])
    axes[0].set_ylabel("mAP, network codes")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=10,
                 title=CROSSES if same else None, title_fontsize=9)
    return drawn


def title(dataset: str, backbone: str, epsilon: float) -> str:
    """What a result shows, and what it shares with the paper's figure."""
    theirs = "the paper's has ResNet-50, probably pretrained" if dataset == "cifar10" else "the paper's is on CIFAR-10"
    return (f"Fig. 5 on {dataset} ({theirs}), {networks(backbone)}, {BITS} bits, network codes, "
            f"epsilon {format_epsilon(epsilon)}")


def report(rows: list[dict]) -> str:
    """The table as text: a line per method and share, a column per scenario."""
    lines = [f"{'':12}" + "".join(f"{scenario:>8}" for scenario in SCENARIOS)]
    for method, share in dict.fromkeys((row["method"], row["share"]) for row in rows):
        values = [row["mAP"] for row in rows if (row["method"], row["share"]) == (method, share)]
        lines.append(f"{method} {share:<7g}" + "".join(f"{value:8.3f}" for value in values))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the seeds asked for, store the table and the figure."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--epsilon", type=float, help="budget in pixel units (default: the paper's)")
    options.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="of protected training images, 0 to 1")
    add_game(options)
    add_colour(options)
    asked = parse(options, arguments)
    plots.use_style()
    how = asked_game(options, asked)
    name = (f"ratio-{place(asked.dataset, asked.backbone)}{game_suffix(how['regime'], how['game'])}"
            f"{'-fast' if asked.fast else ''}")
    config = configuration(asked.dataset, asked.seeds[0], asked.epsilon, asked.fast, asked.backbone, how["regime"], how["game"])
    keep_stored(options, asked.out / f"{name}.json", asked.seeds, dict(asked.load), config.epsilon,
                same={"dataset": asked.dataset, "regime": asked.regime, "backbone": asked.backbone},
                generators=asked.generators, share=asked.shares)
    seeds = {seed: run_seed(asked.dataset, asked.root, seed, asked.epsilon, asked.shares, asked.work, asked.device, asked.fast,
                            asked.backbone, dict(asked.load), **how) for seed in asked.seeds}
    stored = {
        "what": title(asked.dataset, asked.backbone, config.epsilon) + other_game(asked.regime, how["game"]),
        "dataset": asked.dataset, "regime": asked.regime, "backbone": asked.backbone, "game": how["game"],
        "taken": {str(seed): next(iter(cells.values()))["key"].get("taken") for seed, cells in seeds.items()},
        "load": dict(asked.load),
        "images": next(iter(seeds[asked.seeds[0]].values()))["key"]["split"]["counts"],
        "generator": dataclasses.asdict(config),
        "runs": {str(seed): how_run(cells) for seed, cells in seeds.items()},
        "cells": collect(seeds)}
    save_json(asked.out / f"{name}.json", stored)
    save_figure(asked.out / f"{name}.png", figure(stored))
    print(report(stored["cells"]))


if __name__ == "__main__":
    command(main)

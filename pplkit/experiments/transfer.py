"""Figs. 3 and 4: does the protection carry over to victims with other networks, and to other data sets? 16 bits.

    python -m pplkit.experiments.transfer --dataset fashion-mnist --seeds 0
    python -m pplkit.experiments.transfer --dataset cifar10 --origin imagenet13 --networks two_conv

The generator is that of `table1` with the same `--regime` and `--backbone`; it has met this network only, unless the game is
`several` or `--game backbone=NAME,NAME,...` names several. The paper's figure shows CIFAR-10, probably with pretrained
networks (it does not say); here networks start from random weights, unless `--networks` names others. Every victim is kept
under `--work`.
`--victim-seed` gives the victims other random numbers than the surrogates', whose convolutions start from the same ones
otherwise; the surrogates' own seeds are refused.
The victims are trained on clean images; the paper's figure also has some trained on protected ones: `--train-domains clean
adversarial`. They learn from the generator's own training images; with `--other-images` from as many others of the database.
With `--origin` (Fig. 4) the generator is the one of that data set, applied with the budget of `--dataset`.
Writes `data/results/transfer-DATASET.json` (`transfer-ORIGIN-to-DATASET.json`) and a figure.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure
from tqdm.auto import tqdm

from pplkit import plots
from pplkit.backbones import parse as parse_backbone
from pplkit.budget import format_epsilon
from pplkit.config import PAPER
from pplkit.data import ImageSet, load
from pplkit.experiments import common
from pplkit.experiments.common import (
    add_colour,
    check_pretraining,
    command,
    home,
    keep_stored,
    label,
    make_victim,
    once,
    parse,
    parser,
    place,
    setting,
    slug,
    summary,
)
from pplkit.experiments.games import add_game, asked_game, configuration, game_suffix, generator_of, other_game
from pplkit.experiments.table1 import trained_victim
from pplkit.paper import METHODS, TRAIN_DOMAINS
from pplkit.scenarios import SCENARIOS, evaluate_scenarios, protect_split
from pplkit.storage import save_json

BITS = 16  # as in Fig. 3
NETWORKS = ("two_conv", "dense", "mobilenet_v3_small", "resnet18@64")  # @64: see pplkit.backbones


def run_seed(dataset: str, root: str | None, seed: int, epsilon: float | None, networks: Iterable[str], methods: Iterable[str],
             work: Path, device: str, fast: bool, backbone: str = "two_conv", options: dict[str, object] | None = None,
             origin: str | None = None, origin_options: dict[str, object] | None = None, victim_seed: int | None = None,
             origin_root: str | None = None, train_domains: Iterable[str] = ("clean",), regime: str = "reference",
             game: dict[str, object] | None = None, other_images: bool = False, **how: object) -> dict[str, dict]:
    """"adsh dense" -> scenario -> mAP and interval (network codes), for every method and network of the victims; "adsh dense
    adversarial" for those trained on protected images.

    `backbone` is the surrogates', `origin` the data set that the generator learned from if not this one, its files in
    `origin_root` if not in `root`, `victim_seed` the seed of the victims' weights and batches if not `seed`; with
    `other_images` the victims learn from none of the generator's training images; `regime`, `game` and `how` as for
    `games.generator_of`.
    """
    split = load(dataset, root, seed=seed, **(options or {}))
    networks = tuple(networks)
    source = load(origin, origin_root or root, seed=seed, **(origin_options or {})) if origin else split
    if source.train.images.shape[1] != split.train.images.shape[1]:
        raise ValueError(f"{origin} has {source.train.images.shape[1]} channels and {dataset} {split.train.images.shape[1]}: "
                         "a generator is carried over between images of the same kind")
    at = None if origin in PAPER else epsilon
    config = configuration(origin or dataset, seed, at, fast, backbone, regime, game)
    check_pretraining((*config.per_surrogate("backbone"), *networks), split)
    if other_images:  # before the game: there may be too few
        split = split.with_other_train(seed)
    used = range(seed, seed + len(config.code_lengths))
    if victim_seed in used:
        raise ValueError(f"--victim-seed {victim_seed} is the seed of a surrogate, whose first layers the victim would start "
                         f"from: those of seed {seed} have {used.start} to {used.stop - 1}")
    run, folder, taken = generator_of(origin or dataset, source, seed, at, work, device, fast, backbone,
                                      origin_options if origin else options, regime, game, **how)
    budget = configuration(dataset, seed, epsilon, fast).epsilon
    twin = protect_split(split, lambda images: run.protect(images, budget, cache=(options or {}).get("cache")))
    cells, own, drawn = {}, seed if victim_seed is None else victim_seed, _drawn(victim_seed, other_images)
    carried = f"{home(origin, backbone, origin_options)}-to-{home(dataset, load=options)}" if origin else None
    steps = work / f"transfer-{carried or home(dataset, backbone, options)}-{budget:g}{game_suffix(regime, game)}"
    steps = steps / folder.name if taken else steps
    generator = dataclasses.asdict(config)
    tasks = [(method, network, domain) for domain in train_domains for network in networks for method in methods]
    for method, network, domain in tqdm(tasks, desc=f"victims, seed {seed}", unit="victim"):
        if domain == "clean":
            train, note = split.train, {}
            where = work / f"clean-{home(dataset, network, options)}" / f"seed{seed}{drawn}"
        elif network == backbone and origin is None and not drawn:  # those of table1
            train, note, where = twin.train, {"generator": generator}, folder / domain
        else:
            train, note = twin.train, {"generator": generator, "taken": taken}
            where = folder / f"{domain}-{home(dataset, network, options)}-{budget:g}{drawn}"

        def measure(method: str = method, network: str = network, domain: str = domain, train: ImageSet = train,
                    note: dict = note, where: Path = where) -> dict:
            victim = trained_victim(method, BITS, own, split, train, where, device, fast, backbone=network, **note)
            return {"scenarios": summary(evaluate_scenarios(victim, split, twin, train_domain=domain))}

        key = {"generator": generator, "taken": taken, "split": split.manifest,
               "train": None if domain == "clean" else domain,
               "victim": make_victim(method, BITS, own, device, fast, network, split.name).settings()}
        if origin:
            key |= {"origin": source.manifest, "epsilon": budget}
        trained = "" if domain == "clean" else f" {domain}"
        step = f"{method}-{label(network)}-{seed}{drawn}{trained.replace(' ', '-')}.json"
        cells[f"{method} {network}{trained}"] = once(steps / step, measure, key, device)
    return cells


def backbone_name(text: str) -> str:
    """A backbone's name, as an argument."""
    try:
        parse_backbone(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _drawn(victim_seed: int | None, other_images: bool) -> str:
    """Part of a file name: what the victims do not share with the generator."""
    return ("" if victim_seed is None else f"-victim{victim_seed}") + ("-others" if other_images else "")


def _name(dataset: str, origin: str | None, backbone: str) -> str:
    return f"{place(origin, backbone)}-to-{slug(dataset)}" if origin else place(dataset, backbone)


def collect(seeds: dict[int, dict[str, dict]]) -> list[dict]:
    """One row per method, network, train domain and scenario: mean over seeds, the seeds' values, the envelope of their
    intervals.
    """
    rows = []
    for name in next(iter(seeds.values())):
        method, _, network = name.partition(" ")  # a network's weights may lie in a folder with spaces
        train = "adversarial" if network.endswith(" adversarial") else "clean"
        network = network.removesuffix(" adversarial")
        for scenario in SCENARIOS:
            found = {seed: cells[name]["scenarios"][scenario] for seed, cells in seeds.items()}
            rows.append({"method": method, "network": network, "train": train, "scenario": scenario,
                         **common.over_seeds(found)})
    return rows


def headline(stored: dict) -> str:
    """What a stored result is, and how many images are searched: on colour sets often fewer than the paper's."""
    return f"{stored['what']}, {stored['images']['database']:,} database images"


def figure(stored: dict) -> Figure:
    """One panel per method and train domain: groups of bars per network, a bar per scenario, whiskers the seeds' intervals."""
    methods, networks = (list(dict.fromkeys(row[name] for row in stored["cells"])) for name in ("method", "network"))
    domains = list(dict.fromkeys(row["train"] for row in stored["cells"]))
    drawn = Figure(figsize=(9.6, 0.5 + 3.4 * len(domains)), layout="constrained")
    axes = drawn.subplots(len(domains), len(methods), sharey=True, squeeze=False)
    for ax, (domain, method) in zip(axes.flat, itertools.product(domains, methods), strict=True):
        for number, scenario in enumerate(SCENARIOS):
            rows = [row for network in networks for row in stored["cells"]
                    if (row["method"], row["network"], row["train"], row["scenario"]) == (method, network, domain, scenario)]
            x = [place + 0.2 * (number - 1.5) for place in range(len(rows))]
            height = [row["mAP"] for row in rows]
            whiskers = [[max(0, row["mAP"] - row["low"]) for row in rows],  # rounded, they may be below 0
                        [max(0, row["high"] - row["mAP"]) for row in rows]]
            ax.bar(x, height, 0.18, yerr=whiskers, color=plots.PALETTE[number], hatch=("", "//", "..", "xx")[number],
                   edgecolor="white", label=scenario, error_kw={"elinewidth": 1})
        names = [label(network).replace("_", "_\n").replace("@", "\n@") for network in networks]
        ax.set_xticks(range(len(networks)), names, fontsize=9)
        trained = "clean" if domain == "clean" else "protected"
        ax.set(title=f"{method.upper()}, trained on {trained} images", ylim=(0, 1.15), xlabel="the victim's network")
    common.entitle(drawn, headline(stored))
    for line in axes:
        line[0].set_ylabel("mAP, network codes")
    axes[0, -1].legend(ncols=4, loc="upper center", fontsize=9)
    return drawn


def report(rows: list[dict]) -> str:
    """The table as text: a line per method, network and train domain, a column per scenario."""
    lines = [f"{'':36}" + "".join(f"{scenario:>8}" for scenario in SCENARIOS)]
    for victim in dict.fromkeys((row["method"], row["network"], row["train"]) for row in rows):
        values = [row["mAP"] for row in rows if (row["method"], row["network"], row["train"]) == victim]
        method, network, domain = victim
        lines.append(f"{method} {network:19}{domain:12}" + "".join(f"{value:8.3f}" for value in values))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the seeds asked for, store the table and the figure."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--epsilon", type=float, help="budget in pixel units (default: the paper's)")
    options.add_argument("--networks", nargs="+", type=backbone_name, default=list(NETWORKS),
                         help="of the victims, names for pplkit.backbones")
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="victims")
    options.add_argument("--train-domains", nargs="+", choices=list(TRAIN_DOMAINS), default=["clean"],
                         help="what the victims are trained on: clean images, protected (adversarial) ones, or both in turn")
    options.add_argument("--victim-seed", type=int, help="of the victims' weights and batches (default: the run's)")
    options.add_argument("--other-images", action="store_true",
                         help="the victims learn from as many other images of the database, none of the generator's")
    options.add_argument("--origin", help="data set that the generator learned from (default: --dataset)")
    options.add_argument("--origin-root", help="as --root, of --origin (default: --root)")
    options.add_argument("--origin-load", type=setting, nargs="+", default=[], metavar="NAME=VALUE",
                         help="as --load, of --origin")
    add_game(options)
    add_colour(options, of="the surrogates")
    asked = parse(options, arguments)
    plots.use_style()
    how = asked_game(options, asked)
    name = (f"transfer-{_name(asked.dataset, asked.origin, asked.backbone)}"
            f"{game_suffix(how['regime'], how['game'])}{_drawn(asked.victim_seed, asked.other_images)}"
            f"{'-fast' if asked.fast else ''}")
    budget = configuration(asked.dataset, asked.seeds[0], asked.epsilon, asked.fast).epsilon
    sets = {"dataset": asked.dataset, "origin": asked.origin, "regime": asked.regime, "backbone": asked.backbone}
    keep_stored(options, asked.out / f"{name}.json", asked.seeds, dict(asked.load), budget,
                same=sets | {"origin_load": dict(asked.origin_load)}, generators=asked.generators, network=asked.networks,
                method=asked.methods, train=asked.train_domains)
    seeds = {seed: run_seed(asked.dataset, asked.root, seed, asked.epsilon, asked.networks, asked.methods, asked.work,
                            asked.device, asked.fast, asked.backbone, dict(asked.load), asked.origin, dict(asked.origin_load),
                            asked.victim_seed, asked.origin_root, asked.train_domains, other_images=asked.other_images, **how)
             for seed in asked.seeds}
    first = next(iter(seeds[asked.seeds[0]].values()))["key"]
    given = [network for network in asked.networks if parse_backbone(network)[2]]
    shown = f"Fig. 4, {asked.origin} to {asked.dataset}" if asked.origin else f"Fig. 3 on {asked.dataset}"
    stored = {
        "what": f"{shown} (the paper's networks are deep, and probably pretrained), {BITS} bits, network codes, "
                f"epsilon {format_epsilon(budget)}, "
                f"{common.networks(asked.networks) if given else 'networks from random weights'}"
                + other_game(asked.regime, how["game"])
                + (", victims learned from other images than the generator" if asked.other_images else ""),
        **sets, "game": how["game"],
        "taken": {str(seed): next(iter(cells.values()))["key"].get("taken") for seed, cells in seeds.items()},
        "images": first["split"]["counts"], "load": dict(asked.load), "origin_load": dict(asked.origin_load),
        "generator": first["generator"],
        "runs": {str(seed): {name: {"seconds": cell["seconds"], **cell["run"]} for name, cell in cells.items()}
                 for seed, cells in seeds.items()},
        "victims": {name: cell["key"]["victim"] for name, cell in seeds[asked.seeds[0]].items()},
        "cells": collect(seeds)}
    save_json(asked.out / f"{name}.json", stored)
    common.save_figure(asked.out / f"{name}.png", figure(stored))
    print(report(stored["cells"]))


if __name__ == "__main__":
    command(main)

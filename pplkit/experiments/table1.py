"""Table 1: two victims, four code lengths, two train domains, four scenarios, beside the paper's figures.

    python -m pplkit.experiments.table1 --dataset fashion-mnist --seeds 0 1 2
    python -m pplkit.experiments.table1 --dataset cifar10 --backbone resnet18 --load database=20000 query=500 train=5000
    python -m pplkit.experiments.table1 --seeds 0 1 2 --regime reference --backbone two_conv
    python -m pplkit.experiments.table1 --regime scatter --game steps=800 --bits 24 --validation 3000

Each data set has a game and a network that its table is usually made with (`USUAL`); another one's name is part of the file's.
`--backbone` is the victims' network and the surrogates', but for the game `several`, whose surrogates have three.
Per seed: one generator (8-bit surrogates, as in the paper), the whole split protected once, 16 victims. Every finished step is
kept under `--work`, so an interrupted run continues. Writes `data/results/table1-DATASET.json`, a figure of it and, with
`--ship`, the first seed's generator and victims as checkpoints for the notebooks.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from pplkit import budget, plots
from pplkit import device as devices
from pplkit.budget import format_epsilon
from pplkit.config import PAPER
from pplkit.data import ImageSet, RetrievalSplit, load
from pplkit.experiments.common import (
    add_colour,
    check_pretraining,
    command,
    entitle,
    fit_victim,
    given,
    home,
    how_run,
    keep_stored,
    label,
    make_victim,
    networks,
    once,
    over_seeds,
    parse,
    parser,
    save_figure,
    slug,
    summary,
)
from pplkit.experiments.games import (
    OTHERWISE,
    USUAL,
    add_game,
    asked_game,
    configuration,
    digest,
    file_digest,
    game_folder,
    game_title,
    generator_file,
    parts_that_count,
    shipped_generator,
    train_generator,
    usual,
)
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import Victim
from pplkit.hashing import load as load_victim
from pplkit.paper import BITS, METHODS, TRAIN_DOMAINS, at_least_as_good, in_domain, table1
from pplkit.scenarios import evaluate_scenarios, protect_split
from pplkit.storage import provenance, save_json, write_bytes

# Like with like: the paper's ADSH rows are compared with learned database codes, its DSDH rows with network codes (there are no
# others). See the note on protocols in pplkit/scenarios.py.
PROTOCOL = {"adsh": "learned", "dsdh": "network"}


def result_name(dataset: str, backbone: str, epsilon: float | None, regime: str, game: dict[str, object] | None = None) -> str:
    """Name of the result file: what differs from `usual` and from the paper's budget is part of it."""
    usual_regime, usual_backbone = usual(dataset)
    parts = ["" if backbone == usual_backbone else f"-{label(backbone)}", "" if epsilon is None else f"-eps{epsilon:g}",
             "" if regime == usual_regime else f"-{regime}", digest(game)]
    return f"table1-{slug(dataset)}" + "".join(parts)


def trained_victim(method: str, bits: int, seed: int, split: RetrievalSplit, train: ImageSet, folder: Path, device: str,
                   fast: bool, backbone: str = "two_conv", **key: object) -> Victim:
    """A victim trained on `train`, from `folder` if it was trained before with the same settings and data."""
    victim = make_victim(method, bits, seed, device, fast, backbone, split.name)
    path = folder / f"{method}-{bits}.safetensors"
    note = json.loads(json.dumps({"split": split.manifest, **key}))
    if path.exists():
        stored = load_victim(path, device=device)
        if given(stored.settings()) != given(victim.settings()) or given(stored.metadata | {"run": None}) != given(note):
            raise ValueError(f"{path} was trained with other settings or data: give another --work folder, or remove the file")
        return stored
    fit_victim(victim, split, train)
    victim.save(path, **{**note, "run": provenance(device)})
    return victim


def run_victim(method: str, bits: int, domain: str, split: RetrievalSplit, twin: RetrievalSplit, seed: int, work: Path,
               clean: Path, device: str, key: dict, fast: bool, backbone: str = "two_conv") -> dict:
    """Train and measure one victim: scenario -> mAP and intervals, for each protocol the method has.

    Victims trained on clean images depend on no generator; they are kept in the folder `clean`, shared by all budgets.
    """
    def measure() -> dict:
        if domain == "clean":
            victim = trained_victim(method, bits, seed, split, split.train, clean, device, fast, backbone)
        else:
            victim = trained_victim(method, bits, seed, split, twin.train, work / domain, device, fast, backbone,
                                    generator=key["generator"])
        protocols = ("network", "learned") if victim.database_codes is not None else ("network",)
        return {"codes": {protocol: summary(evaluate_scenarios(victim, split, twin, train_domain=domain, codes=protocol))
                          for protocol in protocols}}

    settings = make_victim(method, bits, seed, device, fast, backbone, split.name).settings()
    return once(work / f"{method}-{domain}-{bits}.json", measure, {**key, "victim": settings}, device)


def run_seed(dataset: str, root: str | None, seed: int, epsilon: float | None, work: Path, device: str, fast: bool,
             bits: tuple[int, ...] = BITS, backbone: str = "two_conv", options: dict[str, object] | None = None,
             regime: str = "reference", game: dict[str, object] | None = None,
             memory: dict[str, object] | None = None, generators: Path | None = None,
             validation: int = 0) -> dict[str, dict]:
    """The steps of one seed: "generator", and "adsh clean 16" -> result of `run_victim` for every cell.

    `backbone` is the victims' network, and the surrogates' unless `game` names theirs; `game` has fields of `PPLConfig` that
    differ from the regime's; `memory` as for `train_generator`. `generators`: folder to take the generator from instead of
    playing the game, see `shipped_generator`. With an option `cache` of `load` the protected images are kept in that folder,
    not in memory.
    `validation`: so many database images outside the training set take the place of the queries; the game is the same.
    """
    options = options or {}
    whole = split = load(dataset, root, seed=seed, **options)
    if validation:
        split = dataclasses.replace(whole.validation(validation, seed, keep_train=True), name=whole.name)
    config = configuration(dataset, seed, epsilon, fast, backbone, regime, game)
    remedy = {"remedy": "leave out --validation, whose queries are database images"} if validation else {}
    check_pretraining((backbone, *config.per_surrogate("backbone")), split, **remedy)
    clean = work / f"clean-{home(dataset, backbone, options)}" / f"seed{seed}"
    taken = file_digest(generators, seed)
    work = game_folder(work, dataset, seed, config.epsilon, backbone, options, regime, game, taken)
    shipped = None if generators is None else shipped_generator(generators, seed, config, whole)
    key = {"generator": dataclasses.asdict(config), "split": split.manifest, "taken": taken,
           "accumulation": parts_that_count(config, memory)}

    def train() -> dict:
        if shipped is not None:
            shipped.save(work / "generator.safetensors", **shipped.metadata)
            return {"anew": False, "played": shipped.metadata["run"]}
        anew = not (work / "ppl.safetensors").exists()
        run = train_generator(split, config, work, device, **(memory or {}))
        how = provenance(device)
        run.generator.save(work / "generator.safetensors", dataset=dataset, image_size=split.train.images.shape[-1],
                           config=dataclasses.asdict(config), split=whole.manifest, run=how)
        return {"collapsed": run.collapsed, "memory": memory or {}, "played": how,
                "anew": anew}  # else its seconds are not those of the whole game

    made = once(work / "generator.json", train, key, device)
    generator = PerturbationGenerator.load(work / "generator.safetensors").to(devices.resolve(device),
                                                                              memory_format=torch.channels_last)
    twin = protect_split(split, lambda images: budget.protect(images, generator, config.epsilon, config.norm,
                                                              cache=options.get("cache")))
    cells = [(method, domain, length) for method in METHODS for domain in TRAIN_DOMAINS for length in bits]
    return {"generator": made} | {
            f"{method} {domain} {length}": run_victim(method, length, domain, split, twin, seed, work, clean, device, key,
                                                      fast, backbone)
            for method, domain, length in tqdm(cells, desc=f"victims, seed {seed}", unit="victim")}


def collect(dataset: str, seeds: dict[int, dict[str, dict]]) -> list[dict]:
    """One entry per cell and protocol: mean over seeds, the seeds' values, the envelope of their 95 % intervals."""
    rows = []
    for name in next(iter(seeds.values())):
        if name == "generator":
            continue
        method, domain, bits = name.split()
        for codes in seeds[min(seeds)][name]["codes"]:
            for scenario in TRAIN_DOMAINS[domain]:
                values = {seed: cells[name]["codes"][codes][scenario] for seed, cells in seeds.items()}
                rows.append({
                    "dataset": dataset, "train": domain, "method": method, "task": scenario, "bits": int(bits), "codes": codes,
                    **over_seeds(values), "worst_tie_order": min(v["worst"] for v in values.values()),
                    "best_tie_order": max(v["best"] for v in values.values()),
                    "paper": table1().get((dataset, domain, method, scenario, int(bits)))})
    return rows


def compared(rows: list[dict]) -> list[dict]:
    """The rows that stand beside the paper's cells (`PROTOCOL`), each with "met": at least as good as the paper's."""
    return [{**row, "met": at_least_as_good(row["mAP"], row["paper"], row["train"], row["task"])}
            for row in rows if row["codes"] == PROTOCOL[row["method"]] and row["paper"] is not None]


def cross_domain_ratio(rows: list[dict]) -> float:
    """Our mean cross-domain mAP over the paper's, in the compared cells; lower protects more."""
    cells = [row for row in compared(rows) if not in_domain(row["train"], row["task"])]
    return sum(row["mAP"] for row in cells) / sum(row["paper"] for row in cells)


def report(rows: list[dict]) -> str:
    """Text table: ours, the paper's in brackets, * where the paper is better by more than the tolerance."""
    lines = []
    by_cell = {(r["method"], r["train"], r["task"], r["bits"], r["codes"]): r for r in rows}
    marked = {(r["method"], r["train"], r["task"], r["bits"], r["codes"]): r["met"] for r in compared(rows)}
    bits = sorted({row["bits"] for row in rows})
    for method, codes in dict.fromkeys((r["method"], r["codes"]) for r in rows):
        lines.append(f"{method.upper()}, {codes} codes" + "".join(f"{b:>9} bits     " for b in bits))
        for domain, scenarios in TRAIN_DOMAINS.items():
            for scenario in scenarios:
                cells = []
                for b in bits:
                    row = by_cell[method, domain, scenario, b, codes]
                    paper = f"({row['paper']:.3f})" if row["paper"] is not None else " " * 7
                    met = marked.get((method, domain, scenario, b, codes), True)
                    cells.append(f"{row['mAP']:.3f} {paper}{' ' if met else '*'}")
                lines.append(f"  {'clean' if domain == 'clean' else 'prot.'} {scenario}        " + "   ".join(cells))
    done = compared(rows)
    if done:
        lines.append(f"{sum(row['met'] for row in done)} of {len(done)} cells at least as good as the paper's; "
                     f"mean cross-domain mAP {cross_domain_ratio(rows):.2f} x the paper's")
    return "\n".join(lines)


def _how_run(cells: dict[str, dict]) -> dict:
    """`how_run` of the victims, and the generator's seconds: None if its game was begun by an earlier call."""
    made = cells["generator"]
    return {**how_run({name: cell for name, cell in cells.items() if name != "generator"}),
            "generator_seconds": made["seconds"] if made["anew"] else None, "memory": made.get("memory", {}),
            "generator_commit": made.get("played", made["run"])["commit"]}


def headline(stored: dict) -> str:
    """What a stored table is, its game and networks, and the paper's budget if it is another: never compared silently."""
    epsilon = PAPER.get(stored["cells"][0]["dataset"], (stored["generator"]["epsilon"],))[0]
    theirs = "" if epsilon == stored["generator"]["epsilon"] else f"; the paper's at {format_epsilon(epsilon)}"
    return f"{stored['what']}, {game_title(stored['regime'], stored['game'])}, {networks(stored['backbone'])}{theirs}"


def figure(stored: dict) -> Figure:
    """The cells as bars with the seeds' intervals, the paper's as diamonds where it has any: a column per victim, a row per
    domain of its training images.
    """
    rows = [row for row in stored["cells"] if row["codes"] == PROTOCOL[row["method"]]]
    bits = sorted({row["bits"] for row in rows})
    drawn = Figure(figsize=(9.6, 6.4), layout="constrained")
    axes = drawn.subplots(len(TRAIN_DOMAINS), len(METHODS), sharey=True)
    for line, (domain, scenarios) in zip(axes, TRAIN_DOMAINS.items(), strict=True):
        for ax, method in zip(line, METHODS, strict=True):
            for number, length in enumerate(bits):
                found = [next(row for row in rows if (row["method"], row["train"], row["task"], row["bits"])
                              == (method, domain, scenario, length)) for scenario in scenarios]
                x = [place + 0.8 / len(bits) * (number - (len(bits) - 1) / 2) for place in range(len(scenarios))]
                whiskers = [[max(0, row["mAP"] - row["low"]) for row in found],  # rounded, they may be below 0
                            [max(0, row["high"] - row["mAP"]) for row in found]]
                ax.bar(x, [row["mAP"] for row in found], 0.72 / len(bits), yerr=whiskers, color=plots.PALETTE[number],
                       label=f"{length} bits", error_kw={"elinewidth": 1})
                paper = [math.nan if row["paper"] is None else row["paper"] for row in found]
                ax.plot(x, paper, linestyle="", marker="D", markersize=5, markerfacecolor="white",
                        markeredgecolor=plots.BLACK, label="the paper's" if number == len(bits) - 1 else None)
            ax.set_xticks(range(len(scenarios)), scenarios)
            trained = "clean" if domain == "clean" else "protected"
            ax.set_title(f"{method.upper()} trained on {trained} images, {PROTOCOL[method]} codes", fontsize=11)
            ax.set_ylim(0, 1.05)
        line[0].set_ylabel("mAP")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    entitle(drawn, headline(stored))
    return drawn


def _defaults(part: int) -> str:
    """The games (0) or networks (1) of `usual` as a help text."""
    return ", ".join([f"{pair[part]} with {dataset}" for dataset, pair in USUAL.items()] + [f"else {OTHERWISE[part]}"])


def main(arguments: list[str] | None = None) -> None:
    """Run the seeds asked for, store the table, print it beside the paper's."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--epsilon", type=float, help="budget in pixel units (default: the paper's)")
    options.add_argument("--bits", type=int, nargs="+", default=list(BITS))
    options.add_argument("--validation", type=int, default=0, metavar="N",
                         help="to compare games: judge with N database images outside the training set, not with the queries; "
                              "the result goes to a folder validation inside --out")
    add_game(options, regime=_defaults(0))
    add_colour(options, backbone=_defaults(1))
    options.add_argument("--ship", type=Path, help="folder to copy the first seed's generator and victims to")
    options.add_argument("--ship-generators", type=Path, metavar="FOLDER",
                         help="folder to copy each seed's generator to, as generator-SEED.safetensors")
    asked = parse(options, arguments)
    regime, backbone = usual(asked.dataset)
    asked = argparse.Namespace(**{"regime": regime, "backbone": backbone} | vars(asked))
    plots.use_style()
    seeds, how = {}, asked_game(options, asked)
    game = how["game"]
    if asked.validation:
        if asked.ship:
            options.error("--ship is for victims that were judged on the queries: leave out --validation")
        asked.work, asked.out = asked.work / "validation", asked.out / "validation"
    name = result_name(asked.dataset, asked.backbone, asked.epsilon, asked.regime, game) + ("-fast" if asked.fast else "")
    path = asked.out / f"{name}.json"
    keep_stored(options, path, asked.seeds, dict(asked.load), bits=asked.bits,
                same={"dataset": asked.dataset, "validation": asked.validation, "regime": asked.regime,
                      "backbone": asked.backbone})
    replaced = path.exists()  # by the whole run only
    for seed in asked.seeds:
        seeds[seed] = run_seed(asked.dataset, asked.root, seed, asked.epsilon, asked.work, asked.device, asked.fast,
                               tuple(asked.bits), asked.backbone, dict(asked.load), validation=asked.validation, **how)
        config = configuration(asked.dataset, seed, asked.epsilon, asked.fast, asked.backbone, asked.regime, game)
        rows = collect(asked.dataset, seeds)
        runs = {str(s): _how_run(cells) for s, cells in seeds.items()}
        victims = {method: make_victim(method, 16, seed, asked.device, asked.fast, asked.backbone, asked.dataset).settings()
                   for method in METHODS}
        counts = next(iter(seeds[seed].values()))["key"]["split"]["counts"]
        stored = {
            "what": f"Table 1 on {asked.dataset}, epsilon {format_epsilon(config.epsilon)}, seeds {list(seeds)}"
                    f"{f', {asked.validation} validation queries' if asked.validation else ''}",
            "dataset": asked.dataset, "regime": asked.regime, "backbone": asked.backbone, "game": game,
            "validation": asked.validation, "images": counts, "load": dict(asked.load),
            "generator": dataclasses.asdict(config), "victims_16_bits": victims, "runs": runs, "cells": rows}
        if len(seeds) == len(set(asked.seeds)) or not replaced:
            save_json(path, stored)
    save_figure(path.with_name(f"{name}.png"), figure(stored))
    print(headline(stored), report(rows), sep="\n")
    played = {seed: game_folder(asked.work, asked.dataset, seed, config.epsilon, asked.backbone, dict(asked.load), asked.regime,
                                game, file_digest(asked.generators, seed)) for seed in asked.seeds}
    if asked.ship:
        first = asked.seeds[0]
        clean = asked.work / f"clean-{home(asked.dataset, asked.backbone, dict(asked.load))}" / f"seed{first}"
        ship(played[first], clean, asked.bits, asked.ship)
    if asked.ship_generators:
        for seed, made in played.items():
            write_bytes(generator_file(asked.ship_generators, seed), (made / "generator.safetensors").read_bytes())


def ship(played: Path, clean: Path, bits: Sequence[int], folder: Path) -> None:
    """Copy a seed's generator and victims (without database codes), with a note of where they come from.

    Args:
        played: `game_folder` of the seed.
        clean: folder of its clean-trained victims.
        bits: code lengths of the victims.
        folder: where the copies go.
    """
    write_bytes(folder / "generator.safetensors", (played / "generator.safetensors").read_bytes())
    sources = {"clean": clean, "adversarial": played / "adversarial"}
    for method in METHODS:
        for domain, source in sources.items():
            for length in bits:
                victim = load_victim(source / f"{method}-{length}.safetensors")
                victim.save(folder / f"{method}-{domain}-{length}.safetensors", include_database=False, **victim.metadata)


if __name__ == "__main__":
    command(main)

"""Table 1: two victims, four code lengths, two train domains, four scenarios, beside the paper's figures.

    python -m pplkit.experiments.table1 --dataset fashion-mnist --seeds 0 1 2
    python -m pplkit.experiments.table1 --dataset cifar10 --backbone resnet18 --load database=20000 query=500 train=5000
    python -m pplkit.experiments.table1 --seeds 0 1 2 --regime scatter

Per seed: one generator (8-bit surrogates, as in the paper), the whole split protected once, 16 victims. Every finished step is
kept under `--work`, so an interrupted run continues. Writes `data/results/table1-DATASET.json` and, with `--ship`, the first
seed's generator and victims as checkpoints for the notebooks.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from pplkit.budget import format_epsilon
from pplkit.config import PPLConfig
from pplkit.data import ImageSet, RetrievalSplit, load
from pplkit.experiments.common import (
    add_colour,
    fit_victim,
    given,
    how_run,
    make_victim,
    once,
    over_seeds,
    parse,
    parser,
    place,
    setting,
    summary,
)
from pplkit.hashing import Victim
from pplkit.hashing import load as load_victim
from pplkit.paper import BITS, METHODS, TRAIN_DOMAINS, at_least_as_good, table1
from pplkit.scenarios import evaluate_scenarios, protect_split
from pplkit.storage import provenance, save_json, write_bytes
from pplkit.training import PPLRun, train_ppl

# Like with like: the paper's ADSH rows are compared with learned database codes, its DSDH rows with network codes (there are no
# others). See the note on protocols in pplkit/scenarios.py.
PROTOCOL = {"adsh": "learned", "dsdh": "network"}


REGIMES = {"reference": PPLConfig.reference, "scatter": PPLConfig.scatter}


def configuration(dataset: str, seed: int, epsilon: float | None = None, fast: bool = False,
                  backbone: str = "two_conv", regime: str = "reference", game: dict[str, object] | None = None) -> PPLConfig:
    """The generator's settings: `PPLConfig.reference` or another of `REGIMES`, with another ε and other fields if given."""
    fields = [field.name for field in dataclasses.fields(PPLConfig) if field.name not in ("epsilon", "seed", "backbone")]
    unknown = sorted(set(game or {}) - set(fields))
    if unknown:
        raise ValueError(f"the game cannot be given {', '.join(unknown)}: its fields are {', '.join(fields)} (epsilon, seed "
                         "and backbone are arguments of their own)")
    changes = dict(game or {}) | ({"warmup_steps": 20, "steps": 20} if fast else {})
    if epsilon is not None:
        changes["epsilon"] = epsilon
    return REGIMES[regime](dataset, seed=seed, backbone=backbone, **changes)


def train_generator(split: RetrievalSplit, config: PPLConfig, work: Path, device: str) -> PPLRun:
    """Train the generator of one seed, or continue, or take it from `work` if it is done."""
    return train_ppl(split.train, config, device=device, checkpoint=work / "ppl.safetensors", resume=True)


def trained_victim(method: str, bits: int, seed: int, split: RetrievalSplit, train: ImageSet, folder: Path, device: str,
                   fast: bool, backbone: str = "two_conv", **key: object) -> Victim:
    """A victim trained on `train`, from `folder` if it was trained before with the same settings and data."""
    victim = make_victim(method, bits, seed, device, fast, backbone, split.name)
    path = folder / f"{method}-{bits}.safetensors"
    note = json.loads(json.dumps({"split": split.manifest, **key}))
    if path.exists():
        stored = load_victim(path)
        if stored.settings() != victim.settings() or given(stored.metadata | {"run": None}) != given(note):
            raise ValueError(f"{path} was trained with other settings or data: give another --work folder, or remove the file")
        return stored
    fit_victim(victim, split, train)
    victim.save(path, **{**note, "run": provenance()})
    return victim


def run_victim(method: str, bits: int, domain: str, split: RetrievalSplit, twin: RetrievalSplit, seed: int, work: Path,
               device: str, key: dict, fast: bool, backbone: str = "two_conv") -> dict:
    """Train and measure one victim: scenario -> mAP and intervals, for each protocol the method has.

    Victims trained on clean images depend on no generator; they are kept one folder up, shared by all budgets.
    """
    def measure() -> dict:
        if domain == "clean":
            folder = work.parent.parent / f"clean-{place(split.name, backbone)}" / work.name
            victim = trained_victim(method, bits, seed, split, split.train, folder, device, fast, backbone)
        else:
            victim = trained_victim(method, bits, seed, split, twin.train, work / domain, device, fast, backbone,
                                    generator=key["generator"])
        protocols = ("network", "learned") if victim.database_codes is not None else ("network",)
        return {"codes": {protocol: summary(evaluate_scenarios(victim, split, twin, train_domain=domain, codes=protocol))
                          for protocol in protocols}}

    settings = make_victim(method, bits, seed, device, fast, backbone, split.name).settings()
    return once(work / f"{method}-{domain}-{bits}.json", measure, {**key, "victim": settings})


def run_seed(dataset: str, root: str | None, seed: int, epsilon: float | None, work: Path, device: str, fast: bool,
             bits: tuple[int, ...] = BITS, backbone: str = "two_conv", options: dict[str, object] | None = None,
             regime: str = "reference", game: dict[str, object] | None = None) -> dict[str, dict]:
    """All cells of one seed: "adsh clean 16" -> result of `run_victim`.

    `backbone` is the surrogates' and the victims'; `game` has fields of `PPLConfig` that differ from the regime's.
    """
    split = load(dataset, root, seed=seed, **(options or {}))
    config = configuration(dataset, seed, epsilon, fast, backbone, regime, game)
    work = work / f"table1-{place(dataset, backbone)}-{config.epsilon:g}{_other(regime, game)}" / f"seed{seed}"
    run = train_generator(split, config, work, device)
    run.generator.save(work / "generator.safetensors", dataset=dataset, config=dataclasses.asdict(config), run=provenance())
    twin = protect_split(split, run.protect)
    key = {"generator": dataclasses.asdict(config), "split": split.manifest}
    cells = [(method, domain, length) for method in METHODS for domain in TRAIN_DOMAINS for length in bits]
    return {f"{method} {domain} {length}": run_victim(method, length, domain, split, twin, seed, work, device, key, fast,
                                                      backbone)
            for method, domain, length in tqdm(cells, desc=f"victims, seed {seed}", unit="victim")}


def _other(regime: str, game: dict[str, object] | None = None) -> str:
    """Part of a file name: the regime if it is not the reference, and a digest of the fields that differ from it."""
    changed = f"-game{hashlib.sha256(repr(sorted(game.items())).encode()).hexdigest()[:6]}" if game else ""
    return ("" if regime == "reference" else f"-{regime}") + changed


def collect(dataset: str, seeds: dict[int, dict[str, dict]]) -> list[dict]:
    """One entry per cell and protocol: mean over seeds, the seeds' values, the envelope of their 95 % intervals."""
    rows = []
    for name in next(iter(seeds.values())):
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
    cells = [row for row in compared(rows) if row["task"] != ("C->C" if row["train"] == "clean" else "A->A")]
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
                lines.append(f"  {domain[:5]:5s} {scenario}        " + "   ".join(cells))
    done = compared(rows)
    if done:
        lines.append(f"{sum(row['met'] for row in done)} of {len(done)} cells at least as good as the paper's; "
                     f"mean cross-domain mAP {cross_domain_ratio(rows):.2f} x the paper's")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the seeds asked for, store the table, print it beside the paper's."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--epsilon", type=float, help="budget in pixel units (default: the paper's)")
    options.add_argument("--bits", type=int, nargs="+", default=list(BITS))
    options.add_argument("--regime", choices=list(REGIMES), default="reference", help="how the game is played")
    options.add_argument("--game", type=setting, nargs="+", default=[], metavar="NAME=VALUE",
                         help="fields of PPLConfig that differ from the regime's, as batch_size=32 code_lengths=8,")
    add_colour(options)
    options.add_argument("--ship", type=Path, help="folder to copy the first seed's generator and victims to")
    asked = parse(options, arguments)
    seeds, game = {}, dict(asked.game)
    for seed in asked.seeds:
        seeds[seed] = run_seed(asked.dataset, asked.root, seed, asked.epsilon, asked.work, asked.device, asked.fast,
                               tuple(asked.bits), asked.backbone, dict(asked.load), asked.regime, game)
        config = configuration(asked.dataset, seed, asked.epsilon, asked.fast, asked.backbone, asked.regime, game)
        rows = collect(asked.dataset, seeds)
        runs = {str(s): how_run(cells) for s, cells in seeds.items()}
        suffix = ("" if asked.epsilon is None else f"-eps{config.epsilon:g}") + _other(asked.regime, game)
        name = f"table1-{place(asked.dataset, asked.backbone)}{suffix}{'-fast' if asked.fast else ''}.json"
        victims = {method: make_victim(method, 16, seed, asked.device, asked.fast, asked.backbone, asked.dataset).settings()
                   for method in METHODS}
        counts = next(iter(seeds[seed].values()))["key"]["split"]["counts"]
        save_json(asked.out / name, {
            "what": f"Table 1 on {asked.dataset}, epsilon {format_epsilon(config.epsilon)}, seeds {list(seeds)}",
            "regime": asked.regime, "game": game,
            "images": counts, "load": dict(asked.load),
            "generator": dataclasses.asdict(config), "victims_16_bits": victims, "runs": runs, "cells": rows})
    print(report(rows))
    if asked.ship:
        ship(asked.work, place(asked.dataset, asked.backbone), f"{config.epsilon:g}{_other(asked.regime, game)}",
             asked.seeds[0], asked.bits, asked.ship)


def ship(work: Path, name: str, game: str, seed: int, bits: Sequence[int], folder: Path) -> None:
    """Copy a seed's generator and victims (without database codes), with a note of where they come from.

    `game` is the last part of the work folder's name: ε, and the regime if it is not the reference.
    """
    of_budget = work / f"table1-{name}-{game}" / f"seed{seed}"
    write_bytes(folder / "generator.safetensors", (of_budget / "generator.safetensors").read_bytes())
    sources = {"clean": work / f"clean-{name}" / f"seed{seed}", "adversarial": of_budget / "adversarial"}
    for method in METHODS:
        for domain, source in sources.items():
            for length in bits:
                victim = load_victim(source / f"{method}-{length}.safetensors")
                victim.save(folder / f"{method}-{domain}-{length}.safetensors", include_database=False, **victim.metadata)


if __name__ == "__main__":
    main()

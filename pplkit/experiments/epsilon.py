"""Fig. 6: privacy over the budget, ε from 0 to 1, 16 bits, both victims, both train domains, all four scenarios.

    python -m pplkit.experiments.epsilon --dataset fashion-mnist --seeds 0 1 2 --retrain-seeds 0
    python -m pplkit.experiments.epsilon --dataset cifar10 --backbone resnet18 --load database=20000 query=500 train=5000

The paper does not say what varies with ε. Both meanings are measured and stored under their names:

- "scaled": one generator, trained at the paper's ε; only the size of its output varies. The victims stay the same, those of the
  adversarial train domain have learned from images at the paper's ε.
- "retrained": one generator trained per ε, and victims of the adversarial train domain trained on its images.

Every finished step is kept under `--work` and shared with `table1` of the same game and network (the reference's and two_conv
unless others are asked for), whose generators and victims these are. Writes `data/results/epsilon-DATASET.json` and a figure.
"""

import argparse
import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure
from tqdm.auto import tqdm

from pplkit import plots, quality
from pplkit.budget import format_epsilon, perturbation_norm
from pplkit.config import PAPER, PPLConfig
from pplkit.data import RetrievalSplit, load
from pplkit.experiments import table1
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
from pplkit.experiments.games import (
    add_game,
    asked_game,
    configuration,
    file_digest,
    game_folder,
    game_suffix,
    generator_of,
    other_game,
    parts_that_count,
)
from pplkit.hashing import Victim
from pplkit.paper import CROSSES, METHODS, TRAIN_DOMAINS, victim_row
from pplkit.scenarios import SCENARIOS
from pplkit.storage import save_json
from pplkit.sweep import EpsilonSweep, Patterns

BITS = 16  # as in Fig. 6
SCALED = (0.0, 0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
RETRAINED = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
JUDGED = 1000  # query images that PSNR and SSIM are averaged over


def scaled(dataset: str, root: str | None, seed: int, trained_at: float | None, epsilons: Iterable[float], work: Path,
           device: str, fast: bool, backbone: str = "two_conv", options: dict[str, object] | None = None,
           regime: str = "reference", game: dict[str, object] | None = None, memory: dict[str, object] | None = None,
           generators: Path | None = None) -> dict[str, dict]:
    """One seed's generator at every ε, searched by its four victims.

    Args:
        trained_at: ε of the generator; None for the paper's.
        backbone: of the victims, and of the surrogates unless `game` names theirs.
        options: of `pplkit.data.load`.
        regime, game, memory, generators: as for `games.generator_of`.

    Returns:
        ε as text -> {"cells": {"adsh clean": scenario -> mAP and interval}, "quality": PSNR, SSIM, largest change}, as `once`
        keeps it.
    """
    split = load(dataset, root, seed=seed, **(options or {}))
    config, taken = configuration(dataset, seed, trained_at, fast, backbone, regime, game), file_digest(generators, seed)
    check_pretraining((backbone, *config.per_surrogate("backbone")), split)
    folder = game_folder(work, dataset, seed, config.epsilon, backbone, options, regime, game, taken)
    clean = work / f"clean-{home(dataset, backbone, options)}" / f"seed{seed}"

    @functools.cache
    def sweeps() -> dict[str, EpsilonSweep]:  # when the first ε is not there yet
        run, *_ = generator_of(dataset, split, seed, trained_at, work, device, fast, backbone, options, regime, game, memory,
                               generators)
        patterns = Patterns(run.generator, split.query, split.database)
        return {f"{method} {domain}": EpsilonSweep(
                    _victim(method, domain, split, patterns, clean if domain == "clean" else folder / domain, device, fast,
                            config, backbone), patterns, config.norm)
                for method in METHODS for domain in TRAIN_DOMAINS}

    def measure(epsilon: float) -> dict:
        cells = {name: summary(sweep.evaluate(epsilon)) for name, sweep in sweeps().items()}
        return {"cells": cells, "quality": _quality(next(iter(sweeps().values())).patterns, epsilon, config.norm)}

    key = {"generator": dataclasses.asdict(config), "split": split.manifest, "taken": taken,
           "accumulation": parts_that_count(config, memory),
           "victims": [make_victim(method, BITS, seed, device, fast, backbone, split.name).settings() for method in METHODS]}
    steps = work / f"epsilon-{home(dataset, backbone, options)}{game_suffix(regime, game)}"
    steps = steps / folder.name if taken else steps
    return {exact(epsilon): once(steps / f"scaled-{config.epsilon:g}-{exact(epsilon)}-{seed}.json",
                                 functools.partial(measure, epsilon), key, device)
            for epsilon in tqdm(list(epsilons), desc=f"scaled, seed {seed}", unit="ε")}


def _victim(method: str, domain: str, split: RetrievalSplit, patterns: Patterns, folder: Path, device: str, fast: bool,
            config: PPLConfig, backbone: str) -> Victim:
    """The 16-bit victim of a train domain, trained here if it is not in `folder` yet."""
    if domain == "clean":
        train, key = split.train, {}
    else:
        protected = patterns.protect("database", config.epsilon, config.norm, split.train_index)
        train, key = dataclasses.replace(split.train, images=protected), {"generator": dataclasses.asdict(config)}
    return table1.trained_victim(method, BITS, config.seed, split, train, folder, device, fast, backbone, **key)


def _quality(patterns: Patterns, epsilon: float, norm: str) -> dict[str, float | None]:
    """Mean PSNR of the changed images (dB; None if there are none) and SSIM, largest change in pixel units."""
    clean = patterns.images["query"].images[:JUDGED]
    protected = patterns.protect("query", epsilon, norm, slice(JUDGED))
    decibels = quality.psnr(clean, protected)  # (n,)
    changed = decibels[decibels.isfinite()]
    return {"psnr": round(float(changed.mean()), 2) if len(changed) else None,
            "ssim": round(float(quality.ssim(clean, protected).mean()), 4),
            "linf": round(float(perturbation_norm(clean, protected).max()), 4)}


def retrained(dataset: str, root: str | None, seed: int, epsilons: Iterable[float], work: Path, device: str, fast: bool,
              backbone: str = "two_conv", options: dict[str, object] | None = None, **how: object) -> dict[str, dict]:
    """"adsh clean" -> {ε: scenario -> mAP and interval}, one generator and its victims per ε.

    `backbone` and `options` as for `scaled`, `how` as for `table1.run_seed`.
    """
    cells: dict[str, dict] = {}
    for epsilon in epsilons:
        found = table1.run_seed(dataset, root, seed, epsilon, work, device, fast, (BITS,), backbone, options, **how)
        for name, cell in found.items():
            if name == "generator":
                continue
            method, domain, _ = name.split()
            cells.setdefault(f"{method} {domain}", {})[exact(epsilon)] = cell["codes"]["network"]
    return cells


def collect(seeds: dict[int, dict[str, dict]]) -> list[dict]:
    """One row per victim, train domain, scenario and ε: mean over seeds, the seeds' values, the envelope of their intervals.

    Args:
        seeds: seed -> "adsh clean" -> ε as text -> scenario -> mAP and interval.
    """
    rows = []
    for name, by_epsilon in next(iter(seeds.values())).items():
        method, domain = name.split()
        for epsilon in by_epsilon:
            for scenario in SCENARIOS:
                found = {seed: cells[name][epsilon][scenario] for seed, cells in seeds.items()}
                rows.append({"method": method, "train": domain, "scenario": scenario, "epsilon": float(epsilon),
                             **over_seeds(found)})
    return rows


def figure(stored: dict) -> Figure:
    """Four panels as in Fig. 6: rows ADSH and DSDH, columns clean-trained and trained on protected images.

    Lines are "scaled", with the envelope of the seeds' intervals; markers are "retrained"; crosses are the paper's Table 1, at
    its budget.

    Args:
        stored: content of `data/results/epsilon-DATASET.json`.
    """
    drawn = Figure(figsize=(9.6, 7.5), layout="constrained")
    axes = drawn.subplots(2, 2, sharex=True, sharey=True)
    for row, method in enumerate(METHODS):
        for column, domain in enumerate(TRAIN_DOMAINS):
            ax = axes[row, column]
            for number, scenario in enumerate(SCENARIOS):
                colour, style = plots.PALETTE[number], plots.STYLES[number]
                line, marks = ([cell for cell in stored[way] if (cell["method"], cell["train"], cell["scenario"])
                                == (method, domain, scenario)] for way in ("scaled", "retrained"))
                x = [cell["epsilon"] for cell in line]
                ax.plot(x, [cell["mAP"] for cell in line], color=colour, linestyle=style, label=scenario)
                ax.fill_between(x, [cell["low"] for cell in line], [cell["high"] for cell in line], color=colour, alpha=0.15)
                ax.plot([cell["epsilon"] for cell in marks], [cell["mAP"] for cell in marks], color=colour,
                        linestyle="none", marker="osD^"[number], markersize=5, markerfacecolor="white")
            for scenario, value in victim_row(stored["dataset"], domain, method, BITS).items():
                ax.plot(PAPER[stored["dataset"]][0], value, color=plots.PALETTE[SCENARIOS.index(scenario)], marker="x",
                        linestyle="none", markersize=7, markeredgewidth=2)
            trained = "clean" if domain == "clean" else "protected"
            ax.set(title=f"{method.upper()}, trained on {trained} images", ylim=(0, 1), xlim=(-0.02, 1.02))
            if row:
                ax.set_xlabel("ε (pixel units)")
            if not column:
                ax.set_ylabel("mAP, network codes")
    entitle(drawn, stored["what"])
    shown = ["lines: scaled", *(["markers: retrained"] if stored["retrained"] else []),
             *([CROSSES] if stored["dataset"] in PAPER else [])]
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=10,
                 title=", ".join(shown), title_fontsize=9)
    return drawn


def title(dataset: str, backbone: str, trained_at: float, retrained: bool) -> str:
    """What a result shows."""
    return (f"Fig. 6 on {dataset}, {networks(backbone)}, {BITS} bits, network codes; scaled: one generator trained at "
            f"{format_epsilon(trained_at)}, its output scaled{'; retrained: one generator per epsilon' if retrained else ''}")


def report(stored: dict) -> str:
    """mAP of A->C over ε as text, both meanings side by side."""
    values = {(way, cell["method"], cell["train"], cell["epsilon"]): cell["mAP"]
              for way in ("scaled", "retrained") for cell in stored[way] if cell["scenario"] == "A->C"}
    victims = [(method, domain) for method in METHODS for domain in TRAIN_DOMAINS]
    lines = ["A->C: scaled / retrained   " + "   ".join(
        f"{method} {'clean' if domain == 'clean' else 'prot.'}" for method, domain in victims)]
    for epsilon in sorted({key[-1] for key in values}):
        cells = ("/".join(f"{values[way, *victim, epsilon]:.3f}" if (way, *victim, epsilon) in values else "  -  "
                          for way in ("scaled", "retrained")) for victim in victims)
        lines.append(f"  {format_epsilon(epsilon):22}" + "  ".join(cells))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the seeds asked for, store both curves and the figure."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--trained-at", type=float, help="budget of the generator that is scaled (default: the paper's)")
    options.add_argument("--epsilons", type=float, nargs="+", default=list(SCALED), help="budgets of the scaled curve")
    options.add_argument("--retrained", type=float, nargs="*", default=argparse.SUPPRESS,
                         help="budgets to retrain for, or none (default: "
                              f"{' '.join(map(exact, RETRAINED))}; none with --generators)")
    options.add_argument("--retrain-seeds", type=int, nargs="+", help="seeds of the retrained curve (default: --seeds)")
    add_game(options)
    add_colour(options)
    asked = parse(options, arguments)
    plots.use_style()
    how = asked_game(options, asked)
    budgets = getattr(asked, "retrained", () if asked.generators else RETRAINED)
    if budgets and asked.generators:
        options.error(f"--generators has generators of one budget, and --retrained {' '.join(map(exact, budgets))} plays a "
                      "game for each: leave out one of the two")
    if asked.retrain_seeds and not budgets:
        options.error(f"--retrain-seeds {' '.join(map(str, asked.retrain_seeds))}: nothing is retrained; name budgets with "
                      "--retrained")
    name = (f"epsilon-{place(asked.dataset, asked.backbone)}{game_suffix(how['regime'], how['game'])}"
            f"{'-fast' if asked.fast else ''}")
    path = asked.out / f"{name}.json"
    config = configuration(asked.dataset, asked.seeds[0], asked.trained_at, asked.fast, asked.backbone, how["regime"],
                           how["game"])
    of = {"dataset": asked.dataset, "regime": asked.regime, "backbone": asked.backbone}
    keep_stored(options, path, asked.seeds, dict(asked.load), parts=("scaled",),
                same=of | {"trained_at": config.epsilon}, generators=asked.generators, epsilon=asked.epsilons)
    keep_stored(options, path, asked.retrain_seeds or asked.seeds, dict(asked.load), parts=("retrained",), epsilon=budgets)
    common = (asked.work, asked.device, asked.fast, asked.backbone, dict(asked.load))
    slides = {seed: scaled(asked.dataset, asked.root, seed, asked.trained_at, asked.epsilons, *common, **how)
              for seed in asked.seeds}
    again = {seed: retrained(asked.dataset, asked.root, seed, budgets, *common, **how)
             for seed in (asked.retrain_seeds or asked.seeds)} if budgets else {}
    victims = [f"{method} {domain}" for method in METHODS for domain in TRAIN_DOMAINS]
    first = next(iter(slides[asked.seeds[0]].values()))["key"]
    stored = {
        "what": title(asked.dataset, asked.backbone, config.epsilon, bool(again)) + other_game(asked.regime, how["game"]),
        **of, "game": how["game"],
        "taken": {str(seed): next(iter(found.values()))["key"].get("taken") for seed, found in slides.items()},
        "load": dict(asked.load), "images": first["split"]["counts"],
        "generator": dataclasses.asdict(config), "trained_at": config.epsilon,
        "runs": {str(seed): how_run(found) for seed, found in slides.items()},
        "retrained_seeds": list(again),
        "quality": {str(seed): {epsilon: step["quality"] for epsilon, step in found.items()} for seed, found in slides.items()},
        "scaled": collect({seed: {name: {epsilon: step["cells"][name] for epsilon, step in found.items()} for name in victims}
                           for seed, found in slides.items()}),
        "retrained": collect(again) if again else []}
    save_json(path, stored)
    save_figure(path.with_suffix(".png"), figure(stored))
    print(report(stored))


if __name__ == "__main__":
    command(main)

"""What the results mean in short, the figures 3 to 7 and the benchmarks, for README.md and data/results/README.md.

Links are those of README.md, from the repository's root.

Part of `tools/course_guide.py`; nothing here is typed by hand but what the paper says.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import notebook_rules as rules
from results_guide import PRETRAINED, TITLES, stored_result

from pplkit.experiments import table1
from pplkit.experiments.common import exact, networks
from pplkit.experiments.transfer import NETWORKS
from pplkit.paper import METHODS


def in_short(root: Path = rules.ROOT) -> str:
    """What the results mean for somebody who would protect images, as markdown."""
    rows = table1.compared(stored_result(root, "table1-fashion-mnist")["cells"])
    networks_met = _across_networks(root)
    several = networks_met["several"]
    sweep, ratio = (stored_result(root, name) for name in ("epsilon-fashion-mnist", MIXED["several"]))
    same, other = (stored_result(root, MIXED[name]) for name in ("few 3x3", "few"))
    visible = stored_result(root, "pairs-fashion-mnist")["cells"]

    def mean(values: Iterable[float]) -> str:
        values = list(values)
        return f"{sum(values) / len(values):.2f}"

    def ours(train: str, *tasks: str) -> str:
        return mean(row["mAP"] for row in rows if row["train"] == train and row["task"] in tasks)

    def carried(game: str) -> str:
        return mean(c["mAP"] for c in networks_met[game]["cells"]
                    if c["scenario"] in ("C->A", "A->C") and c["network"] in _unmet(several))

    def worst(share: float, stored: dict = ratio) -> str:
        return f"{min(c['mAP'] for c in stored['cells'] if c['share'] == share):.2f}"

    def again(epsilon: float, train: str, scenario: str) -> str:
        return mean(c["mAP"] for c in sweep["retrained"]
                    if (c["epsilon"], c["train"], c["scenario"]) == (epsilon, train, scenario))

    def strong(dataset: str, *names: str) -> str:
        tables = [table1.compared(stored_result(root, f"table1-{PRETRAINED[name]}")["cells"]) for name in names]
        found = [row["mAP"] for table in tables for row in table if (row["train"], row["task"]) == ("adversarial", "C->C")]
        theirs = [row["paper"] for table in tables for row in table if (row["train"], row["task"]) == ("adversarial", "C->C")]
        shown = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(found), max(found))))
        return f"{shown} on {dataset} (the paper: {max(theirs):.2f} and less)"

    strongest = [c["psnr"] for c in visible if c["epsilon"] == 0.3]
    own, others = (mean(c["mAP"] for c in stored["cells"] if (c["network"], c["train"]) == (OTHERS["several"], "clean")
                        and c["scenario"] in ("C->A", "A->C"))
                   for stored in (stored_result(root, f"others/transfer-fashion-mnist-{OTHERS['several']}-several{name}")
                                  for name in ("", "-others")))
    decibels = f"{sum(strongest) / len(strongest):.1f}"
    return "\n".join([
        f"- It works against a searcher that knows clean images only and has one of the surrogates' networks: mAP falls "
        f"from {ours('clean', 'C->C')} to {ours('clean', 'C->A', 'A->C')} in C->A and A->C (Fashion-MNIST, game `several`). A "
        f"searcher trained on protected images finds {ours('adversarial', 'A->A')} among these and "
        f"{ours('adversarial', 'C->C')} among clean ones. These searchers learned from the generator's own images; with others "
        f"it is much the same (C->A and A->C {own} and {others}, network codes, one seed).",
        f"- It takes a change that everybody sees: ε = 0.3, a PSNR of {decibels} dB (game `reference`). With ε = 0.1 much of "
        f"the search is left (game `reference`, retrained: A->C {again(0.1, 'clean', 'A->C')}; C->C of searchers trained on "
        f"protected images {again(0.1, 'adversarial', 'C->C')}).",
        f"- It carries over to searchers whose network no surrogate has ({_listed(_unmet(several))}): {carried('several')} in "
        f"C->A and A->C with the game `several`; with surrogates of one network {carried('reference')} (`reference`) and "
        f"{carried('shortcut')} (`shortcut`; one seed, the same searchers).",
        f"- A searcher with a few labelled protected images among its training images undoes most of it: mAP of its worst "
        f"scenario {worst(0.0)} with none, {worst(0.01)} with one in a hundred, {worst(0.1)} with one in ten (game `several`; "
        f"`reference` {worst(0.0, same)}, {worst(0.01, same)}, {worst(0.1, same)}, and for searchers with 5×5 kernels "
        f"{worst(0.0, other)}, {worst(0.01, other)}, {worst(0.1, other)}; one seed).",
        "- On colour images searchers whose weights were pretrained on the same set's clean images, and that then learn from "
        "protected ones, still search clean ones: C->C "
        f"{strong('CIFAR-10', *(name for name in PRETRAINED if name.startswith('cifar10 pretrained')))}, "
        f"{strong('ImageNet-13', 'imagenet13 pretrained')}. With weights pretrained on another set they do not: "
        f"{strong('CIFAR-10', 'cifar10 from imagenet13')}, but these search worse in every domain. The paper does not say what "
        "its searchers start from."])


# Games of surrogates of one network and of several, judged by the same searchers, who know clean images
ACROSS_NETWORKS = {game: f"networks/transfer-fashion-mnist{name}" for game, name in
                   {"reference": "", "shortcut": "-two_conv_3x3-shortcut", "several": "-two_conv_3x3-several"}.items()}
# Fig. 5 by game, and the reference's at small shares
MIXED = {"reference": "ratio-fashion-mnist", "several": "ratio-fashion-mnist-two_conv_3x3-several",
         "few": "few/ratio-fashion-mnist", "few 3x3": "few/ratio-fashion-mnist-two_conv_3x3",
         "few shortcut": "few/ratio-fashion-mnist-shortcut"}


def _across_networks(root: Path) -> dict[str, dict]:
    """The stored results of `ACROSS_NETWORKS`, by game."""
    return {game: stored_result(root, name) for game, name in ACROSS_NETWORKS.items()}


def _unmet(stored: dict) -> list[str]:
    """Networks of the searchers that no surrogate has."""
    return [network for network in dict.fromkeys(c["network"] for c in stored["cells"])
            if network not in stored["generator"]["backbone"]]


def _listed(names: Iterable[str]) -> str:
    """"`a`, `b` and `c`"."""
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def networks_table(root: Path = rules.ROOT) -> str:
    """What clean-trained searchers of several networks find of images that three games protected."""
    games = _across_networks(root)
    met = {game: set(_surrogates(stored)) for game, stored in games.items()}

    def mean(stored: dict, network: str, *scenarios: str) -> str:
        found = [c["mAP"] for c in stored["cells"] if c["network"] == network and c["scenario"] in scenarios]
        return f"{sum(found) / len(found):.2f}"

    lines = [f"| searcher's network | C->C | C->A and A->C: {', '.join(f'`{game}`' for game in games)} "
             f"| A->A: {', '.join(f'`{game}`' for game in games)} |", "|---|---|---|---|"]
    for network in dict.fromkeys(c["network"] for c in games["several"]["cells"]):
        across, inside = (", ".join(mean(stored, network, *scenarios) + (" \\*" if network in met[game] else "")
                                    for game, stored in games.items()) for scenarios in (("C->A", "A->C"), ("A->A",)))
        lines.append(f"| `{network}` | {mean(games['several'], network, 'C->C')} | {across} | {inside} |")
    surrogates = "; ".join(f"`{game}` {', '.join(f'`{name}`' for name in _surrogates(stored))}"
                           for game, stored in games.items())
    drawn = ", ".join(f"[{game}](data/results/{name}.png)" for game, name in ACROSS_NETWORKS.items())
    return (f"{chr(10).join(lines)}\n\nA star: a network of that game's surrogates ({surrogates}). Mean of ADSH and DSDH, one "
            f"seed, the same searchers for all three. As bars: {drawn}.")


def _surrogates(stored: dict) -> list[str]:
    """The networks of a game's surrogates, each once."""
    networks = stored["generator"]["backbone"]
    return [networks] if isinstance(networks, str) else list(dict.fromkeys(networks))


# The searchers of `--other-images` and those of the generator's own images, by game and the network of both
OTHERS = {"reference": "two_conv", "several": "two_conv_3x3"}


def others_table(root: Path = rules.ROOT) -> str:
    """What searchers find who learned from the generator's own training images, and from other images."""
    lines = ["| game, searcher's network | learned from | C->C | C->A and A->C | A->A | protected ones: A->A "
             "| A->C, C->A and C->C |", "|---|---|---|---|---|---|---|"]
    for game, network in OTHERS.items():
        suffix = "" if game == "reference" else f"-{network}-{game}"
        for name, images in (("", "the generator's images"), ("-others", "other images")):
            cells = stored_result(root, f"others/transfer-fashion-mnist{suffix}{name}")["cells"]

            def mean(train: str, *scenarios: str, cells: list[dict] = cells, network: str = network) -> str:
                found = [c["mAP"] for c in cells if (c["network"], c["train"]) == (network, train)
                         and c["scenario"] in scenarios]
                return f"{sum(found) / len(found):.2f}"

            lines.append(f"| `{game}`, `{network}` | {images} | {mean('clean', 'C->C')} | {mean('clean', 'C->A', 'A->C')} "
                         f"| {mean('clean', 'A->A')} | {mean('adversarial', 'A->A')} "
                         f"| {mean('adversarial', 'A->C', 'C->A', 'C->C')} |")
    return "\n".join(lines)


def _shares(stored: dict) -> str:
    """The shares of protected training images of a stored Fig. 5, as `--shares` takes them."""
    return " ".join(map(exact, sorted({c["share"] for c in stored["cells"]})))


UNLICENSED = ("cifar10", "imagenet13")  # no picture of them may be passed on, see data/README.md


def figures_table(root: Path = rules.ROOT) -> str:
    """What the paper says of its Figs. 3 to 7, and what our stored runs say, as markdown."""
    def victims(stored: dict) -> list[str]:
        return list(dict.fromkeys(c["network"] for c in stored["cells"]))

    def met(stored: dict, train: str = "clean", scenarios: tuple[str, ...] = ("C->C", "C->A", "A->C")) -> str:
        measured = {(c["method"], c["network"], c["scenario"]): c["mAP"] for c in stored["cells"] if c["train"] == train}
        return "; ".join(f"{method.upper()} " + ", ".join(
            f"{network} " + "/".join(f"{measured[method, network, scenario]:.2f}" for scenario in scenarios)
            for network in victims(stored)) for method in METHODS)

    def carried_over(origin: str, dataset: str) -> str:
        stored = stored_result(root, f"transfer-{origin}-to-{dataset}")
        own = {(c["method"], c["task"]): c["mAP"] for c in stored_result(root, f"table1-{dataset}")["cells"]
               if (c["train"], c["codes"], c["bits"]) == ("clean", "network", 16)}
        rows = [c for c in stored["cells"] if (c["method"], c["train"]) == ("adsh", "clean")]
        return f"ADSH {rows[0]['mAP']:.2f} in C->C, " + ", ".join(
            f"{c['scenario']} {c['mAP']:.2f} (own generator {own['adsh', c['scenario']]:.2f})" for c in rows[1:])

    def mixtures(name: str, shares: Iterable[float] = (0.0, 0.1, 0.5)) -> str:
        worst: dict[tuple[str, float], float] = {}
        stored = stored_result(root, name)
        for c in stored["cells"]:
            worst[c["method"], c["share"]] = min(worst.get((c["method"], c["share"]), 1.0), c["mAP"])
        shown = "; ".join(f"{m.upper()} " + ", ".join(f"{worst[m, share]:.2f} at share {share:g}" for share in shares)
                          for m in METHODS)
        return (f"{TITLES[stored['dataset']]}, game `{stored['regime']}`, searchers {networks(stored['backbone'])}: worst "
                f"scenario {shown}")

    def visible(dataset: str, epsilons: Iterable[float]) -> str:
        pairs: dict[float, list[dict]] = {}
        for c in stored_result(root, f"pairs-{dataset}")["cells"]:
            pairs.setdefault(c["epsilon"], []).append(c)
        seen = {e: [sum(c[key] for c in cells) / len(cells) for key in ("psnr", "ssim")] for e, cells in pairs.items()}
        return "; ".join(f"ε = {e:g}: PSNR {seen[e][0]:.1f} dB, SSIM {seen[e][1]:.2f}" for e in epsilons)

    sweep = stored_result(root, "epsilon-fashion-mnist")
    clean = {c["epsilon"]: c["mAP"] for c in sweep["scaled"] if (c["method"], c["train"], c["scenario"])
             == ("adsh", "clean", "A->C")}
    kept = [c["mAP"] for c in sweep["retrained"] if (c["train"], c["scenario"]) == ("adversarial", "A->A")]
    both = '"with both data available for training, test models perform well on all tasks" (CIFAR-10)'
    carried = "the protection carries over to other networks (CIFAR-10)"
    across = '"generalizes well across different networks and datasets"'
    drops = 'cross-domain search "drops suddenly"; A->A of models trained on adversarial data is kept'
    subtle = '"perceptually indistinguishable", with "moderate distortions on Fashion MNIST"'
    seeds, again = len(sweep["scaled"][0]["seeds"]), len(sweep["retrained_seeds"])
    transfer, of_cifar10 = stored_result(root, "transfer-fashion-mnist"), stored_result(root, "transfer-cifar10")
    of_shortcut, of_several = (stored_result(root, f"transfer-fashion-mnist-two_conv_3x3-{game}")
                               for game in ("shortcut", "several"))
    wide = stored_result(root, ACROSS_NETWORKS["reference"])
    mixed = stored_result(root, MIXED["several"])
    reduced = " ".join(f"{name}={value}" for name, value in of_cifar10["load"].items())
    rows = [
        ("3", "transfer-fashion-mnist.png", carried,
         f"Fashion-MNIST, random weights, trained on clean images, C->C/C->A/A->C; the generator of `reference`, trained "
         f"against two_conv only: {met(transfer)}",
         f"transfer --networks {' '.join(victims(transfer))}"),
        ("3", "transfer-cifar10.png", carried,
         f"CIFAR-10 at a reduced size ({of_cifar10['images']['database']:,} database images), likewise: {met(of_cifar10)}",
         f"transfer --dataset cifar10 --load {reduced} --networks {' '.join(victims(of_cifar10))}"),
        ("3", f"{ACROSS_NETWORKS['reference']}.png", carried,
         f"Fashion-MNIST, the same game, other runs of it and of the searchers, with a Wide ResNet: {met(wide)}",
         f"transfer --out data/results/networks --networks {' '.join(victims(wide))}"),
        *(("3", f"transfer-fashion-mnist-two_conv_3x3-{game}.png", carried,
           f"Fashion-MNIST, the generator of `{game}`, trained against {_listed(_surrogates(stored))}; trained on clean "
           f"images, as above: {met(stored)}. Trained on protected images, A->A/A->C/C->A/C->C: "
           f"{met(stored, 'adversarial', ('A->A', 'A->C', 'C->A', 'C->C'))}",
           f"transfer --regime {game} --backbone {stored['backbone']} --generators data/checkpoints/fashion-mnist/{game} "
           f"--train-domains clean adversarial --networks {' '.join(victims(stored))}")
          for game, stored in (("shortcut", of_shortcut), ("several", of_several))),
        *(("4", f"transfer-{origin}-to-{dataset}.png", across,
           f"{TITLES[origin]} to {TITLES[dataset]}, two_conv from random weights: {carried_over(origin, dataset)}",
           f"transfer --origin {origin} --dataset {dataset} --networks two_conv")
          for origin, dataset in (("imagenet13", "cifar10"), ("cifar10", "imagenet13"))),
        ("5", f"{MIXED['reference']}.png", both, mixtures(MIXED["reference"]),
         f"ratio --shares {_shares(stored_result(root, MIXED['reference']))}"),
        *(("5", f"{MIXED[name]}.png", both, mixtures(MIXED[name], (0.0, 0.01, 0.1)),
           f"ratio{words} --shares {_shares(stored_result(root, MIXED[name]))} --out data/results/few")
          for name, words in {"few": "", "few 3x3": " --backbone two_conv_3x3", "few shortcut": " --regime shortcut"}.items()),
        ("5", f"{MIXED['several']}.png", both, mixtures(MIXED["several"], (0.0, 0.01, 0.1, 0.5)),
         f"ratio --regime several --backbone {mixed['backbone']} --shares {_shares(mixed)}"),
        ("5", "ratio-cifar10.png", both, mixtures("ratio-cifar10"),
         f"ratio --dataset cifar10 --shares {_shares(stored_result(root, 'ratio-cifar10'))}"),
        ("6", "epsilon-fashion-mnist.png", drops,
         "A->C of clean-trained ADSH: " + ", ".join(f"{clean[e]:.2f} at ε = {e:g}" for e in (0.05, 0.1, 0.2, 0.3))
         + f" (one generator scaled, {seeds} seeds); A->A of searchers trained on protected images, ADSH and DSDH, from "
         f"{min(kept):.2f} to {max(kept):.2f} (all retrained at each ε, {'one seed' if again == 1 else f'{again} seeds'})",
         f"epsilon --seeds {' '.join(sweep['scaled'][0]['seeds'])} "
         f"--retrain-seeds {' '.join(map(str, sweep['retrained_seeds']))}"),
    ]
    for name, epsilons in (("fashion-mnist", (0.05, 0.3)), ("cifar10", (0.032, 0.1)), ("imagenet13", (0.032, 0.1))):
        numbers = f"pairs-{name}.{'json' if name in UNLICENSED else 'png'}"
        stored = stored_result(root, f"pairs-{name}")
        made = dict.fromkeys(str(c["epsilon"]) for c in stored["cells"])
        rows.append(("7", numbers, subtle,
                     f"{TITLES[name]}, one image per class, surrogates {networks(stored['backbone'])}: "
                     f"{visible(name, epsilons)}",
                     f"pairs --dataset {name} --epsilons {' '.join(made)}"))
    table = "\n".join(["| Figure | the paper says | ours, one seed unless stated | made by |", "|---|---|---|---|",
                      *(f"| [{number}](data/results/{name}) | {claim} | {ours} "
                        f"| `python -m pplkit.experiments.{command}` |" for number, name, claim, ours, command in rows)])
    last = victims(transfer)[-1]
    minutes = {network: sum(cell["seconds"] for name, cell in transfer["runs"]["0"].items() if name.split()[1] == network) / 60
               for network in victims(transfer)}
    added = "" if last in NETWORKS else ", which is not among the command's default networks"
    mixing = sum(run["seconds"] for run in stored_result(root, MIXED["reference"])["runs"].values()) / 60
    return (f"{table}\n\nOn two CPU cores the victims of Fig. 3 on Fashion-MNIST took {sum(minutes.values()):.0f} minutes, "
            f"{minutes[last]:.0f} of them those of {last}{added}, and the victims of Fig. 5 {mixing:.0f}. The generator is "
            "that of `reference` where no other game is named.")


def speed_table(root: Path = rules.ROOT) -> str:
    """What the benchmarks measured, as markdown."""
    training, memory = stored_result(root, "benchmark-training"), stored_result(root, "benchmark-memory")
    retrieval, protect, sets = (stored_result(root, f"benchmark-{name}") for name in ("retrieval", "protect", "datasets"))

    def on(stored: dict) -> str:
        return f"{stored['cpu']}, {stored['cores']} cores, load {stored['load_average']:.1f}"

    def ratios(codes: str) -> str:
        found = {row["bits"]: row["loop_over_ours"] for row in retrieval["rows"] if row["codes"] == codes}
        return "times as fast at 8, 16, 24, 64 bits: " + ", ".join(f"{found[bits]:.0f}" for bits in (8, 16, 24, 64))

    plain, *ways = memory["rows"]
    saved = "; ".join(f"{way['way']}: {way['game_megabytes'] / plain['game_megabytes']:.1f} of the memory, "
                      f"{way['seconds_per_step'] / plain['seconds_per_step']:.1f} of the time" for way in ways)
    rows = [
        ("step of the game, against a plain float32 loop with two optimisers", f"{training['ratio']:.1f} times as fast"
         + (", in bfloat16" if training["bfloat16"] else "")
         + (f"; with torch.compile {training['compiled_ratio']:.1f} times" if "compiled_ratio" in training else ""),
         "training"),
        (f"exact mAP of {retrieval['queries']:,} queries in {retrieval['database']:,} images, against a loop over the queries",
         f"clustered codes, {ratios('clustered')}; random codes, {ratios('random')}", "retrieval"),
        (f"the reference's game, {sets['rows'][0]['surrogates']} surrogates, batches of {sets['rows'][0]['batch_size']}: steps "
         "per second, peak memory of the process",
         "; ".join(f"{TITLES[row['dataset']]} {row['game_steps_per_second']:.2f}, {row['peak_megabytes'] / 1000:.1f} GB"
                   for row in sets["rows"]), "datasets"),
        (f"a game with {memory['backbone']} as surrogate, against the plain one", saved, "memory"),
        (f"protecting images, against {protect['pgd_steps']} steps of PGD on each",
         "; ".join(f"{row['batch']} at a time: {row['ratio']:.1f} times as fast" for row in protect["rows"]), "protect"),
        ("`pplkit protect`, 2 workers", "; ".join(f"{row['pictures_per_s']:.0f} pictures of {row['pictures']} per second"
                                                  for row in protect["folders"] if row["workers"] == 2), "protect"),
    ]
    stored = {"training": training, "retrieval": retrieval, "datasets": sets, "memory": memory, "protect": protect}
    return "\n".join(["| what | measured | where |", "|---|---|---|",
                      *(f"| {what} | {found} | [{on(stored[name])}](data/results/benchmark-{name}.json) |"
                        for what, found, name in rows)])

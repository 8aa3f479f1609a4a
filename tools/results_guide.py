"""The results in README.md and data/results/README.md: our tables and figures beside the paper's, from `data/results/`.

Links are those of README.md, from the repository's root.

Part of `tools/course_guide.py`; nothing here is typed by hand but what the paper says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import notebook_rules as rules

from pplkit.experiments import table1
from pplkit.experiments.common import networks
from pplkit.experiments.transfer import NETWORKS
from pplkit.paper import METHODS, TOLERANCE, at_least_as_good, in_domain


def _stored(root: Path, name: str) -> dict:
    return json.loads((root / "data" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def _in_one_sentence(stored: dict) -> str:
    """How many of a table's cells are met, and how much is found across domains."""
    ratio = table1.cross_domain_ratio(stored["cells"])
    return f"{_met(stored)}; mean cross-domain mAP is {ratio:.2f} times the paper's."


def _met(stored: dict) -> str:
    """Cells that are as good as the paper's, with the tolerance and without."""
    met, strictly, total = _cells_met(stored)
    return f"{met} of {total} cells are as good as the paper's within {TOLERANCE:g} ({strictly} without that tolerance)"


def _cells_met(stored: dict) -> tuple[int, int, int]:
    """Cells as good as the paper's within the tolerance, those without it, and all."""
    rows = table1.compared(stored["cells"])
    strictly = sum(at_least_as_good(row["mAP"], row["paper"], row["train"], row["task"], 0) for row in rows)
    return sum(row["met"] for row in rows), strictly, len(rows)


def _alone(stored: dict) -> str:
    """Cells met by each seed alone."""
    rows = table1.compared(stored["cells"])
    return ", ".join(str(sum(at_least_as_good(row["seeds"][seed], row["paper"], row["train"], row["task"]) for row in rows))
                     for seed in stored["runs"])


# What should not be found: train domain and scenarios
ACROSS = {"A->A of searchers trained on clean images": ("clean", "A->A"), "their C->A and A->C": ("clean", "C->A", "A->C"),
          "A->C, C->A and C->C of those trained on protected ones": ("adversarial", "A->C", "C->A", "C->C")}


def _mean(rows: list[dict], group: str) -> str:
    """Mean mAP of the rows of a group of `ACROSS`."""
    train, *tasks = ACROSS[group]
    values = [row["mAP"] for row in rows if row["train"] == train and row["task"] in tasks]
    return f"{sum(values) / len(values):.2f}"


def _means(stored: dict, other: dict) -> str:
    """Mean mAP of what should not be found, and of another table in brackets."""
    ours, others = (table1.compared(table["cells"]) for table in (stored, other))
    return ", ".join(f"{group} {_mean(ours, group)} ({_mean(others, group)})" for group in ACROSS)


def _drawn(name: str) -> str:
    return f"[As bars](data/results/table1-{name}.png)."


def cells_table(stored: dict) -> str:
    """A stored Table 1 beside the paper's, as markdown."""
    rows = table1.compared(stored["cells"])
    bits = sorted({row["bits"] for row in rows})
    head = " | ".join(f"{b} bits" for b in bits)
    lines = [f"| victim | trained on | scenario | {head} |", "|---|---|---|" + "---|" * len(bits)]
    star = " \\*"
    cells = {(row["method"], row["train"], row["task"], row["bits"]): row for row in rows}
    for method, train, task in dict.fromkeys(key[:3] for key in cells):
        found = [cells[method, train, task, b] for b in bits]
        shown = [f"{row['mAP']:.3f} ({row['paper']:.3f}){'' if row['met'] else star}" for row in found]
        domain = "clean" if train == "clean" else "protected"
        lines.append(f"| {method.upper()} | {domain} images | {task} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _at_half_budget(name: str, root: Path) -> str:
    """What table1-NAME.json, with ε = 0.15, says beside the paper's at 0.3."""
    half = _stored(root, f"table1-{name}")
    rows = table1.compared(half["cells"])
    shown = ", ".join(f"{row['task']} {row['mAP']:.3f} ({row['paper']:.3f})" for row in rows
                      if (row["method"], row["train"]) == ("adsh", "clean"))
    seeds = f"{len(half['runs'])} seed{'s' if len(half['runs']) > 1 else ''}"
    epsilon, ratio = half["generator"]["epsilon"], table1.cross_domain_ratio(half["cells"])
    return (f"At half the budget (ε = {epsilon:g}, 16 bits, {seeds}; the paper's figures are those at 0.3)\n"
            f"{_met(half)};\nmean cross-domain mAP is {ratio:.2f} times the paper's. "
            f"ADSH trained on clean images:\n{shown}. {_drawn(name)}")


def games_table(root: Path = rules.ROOT) -> str:
    """One row for each of our Fashion-MNIST tables at the paper's budget, as markdown."""
    lines = ["| game | network | cells as good as the paper's | without the tolerance | each seed alone | cross-domain mAP "
             "over the paper's |", "|---|---|---|---|---|---|"]
    tables = {"": "", "-two_conv-scatter": "", "-two_conv-scatter-gamef24c9c": ", learners' weight 40",
              "-two_conv-reference": ""}
    for name, changed in tables.items():
        stored = _stored(root, f"table1-fashion-mnist{name}")
        met, strictly, total = _cells_met(stored)
        lines.append(f"| `{stored['regime']}`{changed} | `{stored['backbone']}` "
                     f"| {met} of {total} | {strictly} | {_alone(stored)} | {table1.cross_domain_ratio(stored['cells']):.2f} |")
    return "\n".join(lines)


def results_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 on Fashion-MNIST beside the paper's, from the stored results, as markdown."""
    stored, reference = (_stored(root, f"table1-fashion-mnist{name}") for name in ("", "-two_conv-reference"))
    return (f"{cells_table(stored)}\n\n{_in_one_sentence(stored)} Each seed alone meets {_alone(stored)} cells. On average (in "
            f"brackets the game `reference`): {_means(stored, reference)}. {_drawn('fashion-mnist')}\n\n"
            f"{_network_codes(stored)}\n\n"
            f"{fresh_seed(root)}\n\n{_at_half_budget('fashion-mnist-eps0.15', root)}")


def _network_codes(stored: dict) -> str:
    """What is met if ADSH, too, computes its database codes from the pictures."""
    rows = [row for row in stored["cells"] if row["codes"] == "network" and row["paper"] is not None]
    met = sum(at_least_as_good(row["mAP"], row["paper"], row["train"], row["task"]) for row in rows)
    found = [row["mAP"] for row in rows if (row["method"], row["train"], row["task"]) == ("adsh", "clean", "C->C")]
    return (f"ADSH has two kinds of database codes: learned ones, which need the label of every database image, and network "
            f"codes, computed from the pictures. With network codes its C->C is {min(found):.2f} to {max(found):.2f}, and "
            f"{met} of {len(rows)} cells are met.")


def fresh_seed(root: Path = rules.ROOT) -> str:
    """A seed played after everything was fixed: what it meets alone, and with the others."""
    stored, fresh = _stored(root, "table1-fashion-mnist"), _stored(root, "fresh-seed/table1-fashion-mnist")
    (seed, run), = fresh["runs"].items()
    alone, total = sum(row["met"] for row in table1.compared(fresh["cells"])), len(table1.compared(fresh["cells"]))
    together = []
    for row, more in zip(stored["cells"], fresh["cells"], strict=True):
        seeds = row["seeds"] | more["seeds"]
        together.append({**row, "seeds": seeds, "mAP": sum(seeds.values()) / len(seeds)})
    rows = table1.compared(together)
    trained = {"clean": "clean", "adversarial": "protected"}
    missed = [f"{row['method'].upper()} with {row['bits']} bits trained on {trained[row['train']]} images, {row['task']} "
              f"{row['mAP']:.3f} ({row['paper']:.3f})" for row in rows if not row["met"]]
    return (f"`shortcut` was tuned on seed 0, and once more because one of these cells was missed. Seed {seed} was played when "
            f"all settings were fixed, on another processor (in {run['dtype'][0]}). Alone it meets "
            f"{alone} of {total} cells, with {table1.cross_domain_ratio(fresh['cells']):.2f} times the paper's cross-domain "
            f"mAP; the mean of all {len(rows[0]['seeds'])} seeds meets {sum(row['met'] for row in rows)}"
            f"{' (not: ' + '; '.join(missed) + ')' if missed else ''}, with "
            f"{table1.cross_domain_ratio(together):.2f} ([stored](data/results/fresh-seed/table1-fashion-mnist.json)).")


def reference_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 with the generator of most notebooks, as markdown."""
    stored = _stored(root, "table1-fashion-mnist-two_conv-reference")
    return (f"{cells_table(stored)}\n\n{_in_one_sentence(stored)} {_drawn('fashion-mnist-two_conv-reference')}\n\n"
            f"{_at_half_budget('fashion-mnist-two_conv-eps0.15-reference', root)}")


def scatter_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 with the generator that also breaks up A->A, as markdown."""
    stored, reference, heavier = (_stored(root, f"table1-fashion-mnist-two_conv{name}") for name in (
        "-scatter", "-reference", "-scatter-gamef24c9c"))
    by_domain = []
    for domain, trained in (("clean", "clean"), ("adversarial", "protected")):
        met, before = ([row["met"] for row in table1.compared(table["cells"]) if row["train"] == domain]
                       for table in (stored, reference))
        by_domain.append(f"of {len(met)} with searchers trained on {trained} images {sum(met)} (reference: {sum(before)})")
    return (f"{cells_table(stored)}\n\n{_in_one_sentence(stored)} Cells met {', '.join(by_domain)}. "
            f"Generators differ: each seed alone meets {_alone(stored)} cells (reference: {_alone(reference)}). "
            f"{_drawn('fashion-mnist-two_conv-scatter')}\n\n"
            f"With a weight of 40 instead of 20 for its two learners (in float32, on another processor) "
            f"{_in_one_sentence(heavier)} Each seed alone meets {_alone(heavier)}. "
            f"On average (in brackets the table above): {_means(heavier, stored)}. "
            f"{_drawn('fashion-mnist-two_conv-scatter-gamef24c9c')}"
            f"\n\n{_at_half_budget('fashion-mnist-two_conv-eps0.15-scatter', root)}")


def apart_table(root: Path = rules.ROOT) -> str:
    """Game and network apart: seed 0, 16 bits, one row for each pair that was run, as markdown."""
    lines = [f"| game | network | cells met of 16 | {' | '.join(ACROSS)} |", "|---|---|---|---|---|---|"]
    for name in ("-two_conv-reference", "-reference", "-two_conv-scatter", "-two_conv", "", "-game9c1951"):
        stored = _stored(root, f"table1-fashion-mnist{name}")
        rows = table1.compared([{**row, "mAP": row["seeds"]["0"]} for row in stored["cells"] if row["bits"] == 16])
        means = " | ".join(_mean(rows, group) for group in ACROSS)
        several = "" if stored["generator"]["backbone"] == stored["backbone"] else ", surrogates of three networks"
        lines.append(f"| `{stored['regime']}`{several} | `{stored['backbone']}` "
                     f"| {sum(row['met'] for row in rows)} | {means} |")
    return "\n".join(lines)


def trials_table(root: Path = rules.ROOT) -> str:
    """The games that were judged on validation queries, one row for each stored table, as markdown."""
    lines = [f"| game | fields that differ | network | bits | seeds | cells met | {' | '.join(ACROSS)} |",
             "|---|---|---|---|---|---|---|---|---|"]
    folder = root / "data" / "results" / "validation"
    trials = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("table1-fashion-mnist*.json"))]
    first, *others = sorted(trials, key=lambda trial: len(trial["game"]))
    for stored in (first, *others):
        rows = table1.compared(stored["cells"])
        same = table1.compared([{**row, "mAP": sum(row["seeds"][seed] for seed in stored["runs"]) / len(stored["runs"])}
                                for row in first["cells"]])  # the first trial, of these seeds
        changed = ", ".join(f"`{name}={','.join(map(str, value)) if isinstance(value, list) else value}`"
                            for name, value in stored["game"].items()) or "none"
        bits = ", ".join(str(length) for length in sorted({row["bits"] for row in rows}))
        means = " | ".join(_mean(rows, group) + (f" ({_mean(same, group)})" if stored is not first else "") for group in ACROSS)
        met = f"{sum(row['met'] for row in rows)} of {len(rows)}"
        before = f" ({sum(row['met'] for row in same)})" if stored is not first else ""
        lines.append(f"| `{stored['regime']}` | {changed} | `{stored['backbone']}` | {bits} "
                     f"| {', '.join(stored['runs'])} | {met}{before} | {means} |")
    return "\n".join(lines)


# With networks that `pplkit.experiments.pretrain` pretrained; data/results/README.md has the commands
PRETRAINED = {"cifar10 pretrained": "cifar10-mobilenet_v3_small@32-cifar10-1b6af9b0-game8b2372",
              "cifar10 pretrained scatter": "cifar10-mobilenet_v3_small@32-cifar10-1b6af9b0-scatter-gamea8cea0",
              "imagenet13 pretrained": "imagenet13-resnet18@224-imagenet13-ad6aef91-gamec713f0"}


COLOUR = {"cifar10": "cifar10", "cifar10 shortcut": "cifar10-shortcut-game80339f", "imagenet13": "imagenet13", **PRETRAINED}


def _players(stored: dict) -> str:
    """Whose networks they are: "two_conv from random weights for surrogates and victims"."""
    surrogates, victims = stored["generator"]["backbone"], stored["backbone"]
    if surrogates == victims:
        return f"{networks(victims)} for surrogates and victims"
    return f"{networks(surrogates)} for surrogates, {networks(victims)} for victims"


def colour_table(name: str, root: Path = rules.ROOT) -> str:
    """Our Table 1 on a colour data set beside the paper's, and what it was run with, from table1-NAME.json, as markdown."""
    stored = _stored(root, f"table1-{name}")
    images, seeds = stored["images"], len(stored["runs"])
    devices = ", ".join(sorted({device for run in stored["runs"].values() for device in run["device"]}))
    run = (f"{images['database']:,} database images, {images['train']:,} of them for training, {images['query']:,} queries, "
           f"ε = {stored['generator']['epsilon']:g}, {_players(stored)}, "
           f"the game ({stored['regime']}) in batches of {stored['generator']['batch_size']}, "
           f"{seeds} seed{'s' if seeds > 1 else ''}, {devices}")
    network = [row for row in stored["cells"] if (row["method"], row["codes"], row["bits"]) == ("adsh", "network", 16)]
    domains = ", ".join(f"{row['task']} {row['mAP']:.3f}" for row in network if row["train"] == "clean")
    protected = ", ".join(f"{row['task']} {row['mAP']:.3f}" for row in network if row["train"] == "adversarial")
    across = sum(row["met"] and not in_domain(row["train"], row["task"]) for row in table1.compared(stored["cells"]))
    met = sum(row["met"] for row in table1.compared(stored["cells"]))
    which = f"All {met} are cross-domain cells" if across == met else f"{across} of the {met} are cross-domain cells"
    weak = "" if ":" in stored["backbone"] else ", which a weak searcher reaches by itself"
    return (f"{run}.\n\n{cells_table(stored)}\n\n{_in_one_sentence(stored)} {which}{weak}. "
            f"ADSH with network codes on both sides, 16 bits, trained on clean images: {domains}; "
            f"on protected images: {protected}. {_drawn(name)}")


def overview_table(root: Path = rules.ROOT) -> str:
    """One row for each of our tables of the three data sets, and what was run where, as markdown."""
    lines = ["| data set | game, network | images, seeds | cells as good as the paper's | in-domain ones "
             "| C->C, trained on clean images: ADSH, DSDH | C->C, trained on protected ones: ADSH, DSDH "
             "| across domains, over the paper's |", "|---|---|---|---|---|---|---|---|"]
    for name in ("fashion-mnist", "fashion-mnist-two_conv-reference", *sorted(COLOUR.values())):
        stored = _stored(root, f"table1-{name}")
        rows = table1.compared(stored["cells"])
        inside = [row["met"] for row in rows if in_domain(row["train"], row["task"])]
        seeds = len(stored["runs"])
        size = stored.get("images", {"database": 60_000})["database"]  # older files of Fashion-MNIST, which is always whole
        network, _, weights = stored["backbone"].partition(":")
        lines.append(f"| {TITLES[rows[0]['dataset']]} | `{stored['regime']}`{', other fields' if stored['game'] else ''}, "
                     f"`{network}`{', pretrained' if weights else ''} "
                     f"| {size:,}, {seeds} seed{'s' if seeds > 1 else ''} | {sum(row['met'] for row in rows)} of {len(rows)} "
                     f"| {sum(inside)} of {len(inside)} | {_searches_clean(rows, 'clean')} "
                     f"| {_searches_clean(rows, 'adversarial')} | {table1.cross_domain_ratio(stored['cells']):.2f} |")
    return "\n".join(lines)


def _searches_clean(rows: list[dict], domain: str) -> str:
    """C->C of both victims with 16 bits, the paper's in brackets: "0.90, 0.79 (0.90, 0.70)"."""
    found = {row["method"]: row for row in rows if (row["task"], row["train"], row["bits"]) == ("C->C", domain, 16)}
    ours, theirs = (", ".join(f"{found[method][of]:.2f}" for method in METHODS) for of in ("mAP", "paper"))
    return f"{ours} ({theirs})"


def in_short(root: Path = rules.ROOT) -> str:
    """What the results mean for somebody who would protect images, as markdown."""
    rows = table1.compared(_stored(root, "table1-fashion-mnist")["cells"])
    one, several = _games_of_networks(root)
    sweep, ratio = _stored(root, "epsilon-fashion-mnist"), _stored(root, "ratio-fashion-mnist")
    visible = _stored(root, "pairs-fashion-mnist")["cells"]

    def mean(values: Iterable[float]) -> str:
        values = list(values)
        return f"{sum(values) / len(values):.2f}"

    def ours(train: str, *tasks: str) -> str:
        return mean(row["mAP"] for row in rows if row["train"] == train and row["task"] in tasks)

    def carried(stored: dict, own: bool) -> str:
        return mean(c["mAP"] for c in stored["cells"]
                    if c["scenario"] in ("C->A", "A->C") and (c["network"] == one["backbone"]) is own)

    def worst(share: float) -> str:
        return f"{min(c['mAP'] for c in ratio['cells'] if c['share'] == share):.2f}"

    def again(epsilon: float, train: str, scenario: str) -> str:
        return mean(c["mAP"] for c in sweep["retrained"]
                    if (c["epsilon"], c["train"], c["scenario"]) == (epsilon, train, scenario))

    def strong(dataset: str, *names: str) -> str:
        tables = [table1.compared(_stored(root, f"table1-{PRETRAINED[name]}")["cells"]) for name in names]
        found = [row["mAP"] for table in tables for row in table if (row["train"], row["task"]) == ("adversarial", "C->C")]
        theirs = [row["paper"] for table in tables for row in table if (row["train"], row["task"]) == ("adversarial", "C->C")]
        return f"{min(found):.2f} to {max(found):.2f} on {dataset} (the paper: {max(theirs):.2f} and less)"

    decibels = mean(c["psnr"] for c in visible if c["epsilon"] == 0.3)
    return "\n".join([
        f"- It works against a searcher that knows clean images only and has the surrogates' network: mAP falls from "
        f"{ours('clean', 'C->C')} to {ours('clean', 'C->A', 'A->C')} in C->A and A->C (Fashion-MNIST, game `shortcut`). A "
        f"searcher trained on protected images finds {ours('adversarial', 'A->A')} among these and "
        f"{ours('adversarial', 'C->C')} among clean ones.",
        f"- It takes a change that everybody sees: ε = 0.3, a PSNR of {float(decibels):.0f} dB. With ε = 0.1 much of the "
        f"search is left (game `reference`, retrained: A->C {again(0.1, 'clean', 'A->C')}; C->C of searchers trained on "
        f"protected images {again(0.1, 'adversarial', 'C->C')}).",
        f"- Searchers with other networks than the surrogates' find more in C->A and A->C: {carried(one, False)} instead of "
        f"{carried(one, True)}. Surrogates of three networks instead of one mend most of that: {carried(several, False)}, and "
        f"{carried(several, True)} with the network of before (one seed).",
        f"- A searcher with one protected image in ten among its training images finds everything again (worst scenario "
        f"{worst(0.1)}; game `reference`).",
        "- On colour images searchers from pretrained weights that learn from protected images still search clean ones, C->C "
        f"{strong('CIFAR-10', 'cifar10 pretrained', 'cifar10 pretrained scatter')}, "
        f"{strong('ImageNet-13', 'imagenet13 pretrained')}. Why the paper's do not, our runs do not explain; it does not say "
        "what its searchers start from."])


# Surrogates of one network, and of several, judged by the same searchers
SEVERAL = tuple(f"networks/transfer-fashion-mnist-two_conv_3x3-shortcut{name}" for name in ("", "-game9c1951"))


def _games_of_networks(root: Path) -> tuple[dict, dict]:
    """The stored results of the game with surrogates of one network, and of that with several."""
    return _stored(root, SEVERAL[0]), _stored(root, SEVERAL[1])


def several_table(root: Path = rules.ROOT) -> str:
    """What clean-trained searchers find of images protected by a game with surrogates of one network and of several."""
    one, several = _games_of_networks(root)
    met = set(several["generator"]["backbone"])

    def mean(stored: dict, network: str, *scenarios: str) -> str:
        found = [c["mAP"] for c in stored["cells"] if c["network"] == network and c["scenario"] in scenarios]
        return f"{sum(found) / len(found):.2f}"

    lines = ["| searcher's network | C->C | C->A and A->C, surrogates of one network | of several "
             "| A->A, one | A->A, several |", "|---|---|---|---|---|---|"]
    for network in dict.fromkeys(c["network"] for c in several["cells"]):
        found = [mean(stored, network, *scenarios) for scenarios in (("C->A", "A->C"), ("A->A",)) for stored in (one, several)]
        own = "" if network in met else " (no surrogate's)"
        lines.append(f"| `{network}`{own} | {mean(several, network, 'C->C')} | {' | '.join(found)} |")
    surrogates = ", ".join(f"`{name}`" for name in several["generator"]["backbone"])
    return (f"{chr(10).join(lines)}\n\nSurrogates of the first game: `{one['backbone']}`; of the second: {surrogates}, in this "
            f"order. Mean of ADSH and DSDH, one seed, the same searchers for both. As bars: "
            f"[one](data/results/{SEVERAL[0]}.png), [several](data/results/{SEVERAL[1]}.png).")


TITLES = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "imagenet13": "ImageNet-13"}
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
        stored = _stored(root, f"transfer-{origin}-to-{dataset}")
        own = {(c["method"], c["task"]): c["mAP"] for c in _stored(root, f"table1-{dataset}")["cells"]
               if (c["train"], c["codes"], c["bits"]) == ("clean", "network", 16)}
        rows = [c for c in stored["cells"] if (c["method"], c["train"]) == ("adsh", "clean")]
        return f"ADSH {rows[0]['mAP']:.2f} in C->C, " + ", ".join(
            f"{c['scenario']} {c['mAP']:.2f} (own generator {own['adsh', c['scenario']]:.2f})" for c in rows[1:])

    def mixtures(dataset: str) -> str:
        worst: dict[tuple[str, float], float] = {}
        stored = _stored(root, f"ratio-{dataset}")
        for c in stored["cells"]:
            worst[c["method"], c["share"]] = min(worst.get((c["method"], c["share"]), 1.0), c["mAP"])
        shown = (f"{m.upper()} {worst[m, 0.0]:.2f} at share 0, {worst[m, 0.1]:.2f} at 0.1, {worst[m, 0.5]:.2f} at 0.5"
                 for m in METHODS)
        return f"{TITLES[dataset]}, {networks(stored['backbone'])}: worst scenario {', '.join(shown)}"

    def visible(dataset: str, epsilons: Iterable[float]) -> str:
        pairs: dict[float, list[dict]] = {}
        for c in _stored(root, f"pairs-{dataset}")["cells"]:
            pairs.setdefault(c["epsilon"], []).append(c)
        seen = {e: [sum(c[key] for c in cells) / len(cells) for key in ("psnr", "ssim")] for e, cells in pairs.items()}
        return "; ".join(f"ε = {e:g}: PSNR {seen[e][0]:.1f} dB, SSIM {seen[e][1]:.2f}" for e in epsilons)

    sweep = _stored(root, "epsilon-fashion-mnist")
    clean = {c["epsilon"]: c["mAP"] for c in sweep["scaled"] if (c["method"], c["train"], c["scenario"])
             == ("adsh", "clean", "A->C")}
    kept = [c["mAP"] for c in sweep["retrained"] if (c["train"], c["scenario"]) == ("adversarial", "A->A")]
    both = '"with both data available for training, test models perform well on all tasks" (CIFAR-10)'
    carried = "the protection carries over to other networks (CIFAR-10)"
    across = '"generalizes well across different networks and datasets"'
    drops = 'cross-domain search "drops suddenly"; A->A of models trained on adversarial data is kept'
    subtle = '"perceptually indistinguishable", with "moderate distortions on Fashion MNIST"'
    seeds, again = len(sweep["scaled"][0]["seeds"]), len(sweep["retrained_seeds"])
    transfer, of_cifar10 = _stored(root, "transfer-fashion-mnist"), _stored(root, "transfer-cifar10")
    halves = _stored(root, "transfer-fashion-mnist-two_conv_3x3-shortcut")
    reduced = " ".join(f"{name}={value}" for name, value in of_cifar10["load"].items())
    rows = [
        ("3", "transfer-fashion-mnist.png", carried,
         f"Fashion-MNIST, random weights, trained on clean images, C->C/C->A/A->C; the generator of `reference`, trained "
         f"against two_conv only: {met(transfer)}",
         f"transfer --networks {' '.join(victims(transfer))}"),
        ("3", "transfer-cifar10.png", carried,
         f"CIFAR-10 at a reduced size ({of_cifar10['images']['database']:,} database images), likewise: {met(of_cifar10)}",
         f"transfer --dataset cifar10 --load {reduced} --networks {' '.join(victims(of_cifar10))}"),
        ("3", "transfer-fashion-mnist-two_conv_3x3-shortcut.png", carried,
         f"Fashion-MNIST, the generator of Table 1, trained against two_conv_3x3 only; trained on clean images, as above: "
         f"{met(halves)}. Trained on protected images, A->A/A->C/C->A/C->C: "
         f"{met(halves, 'adversarial', ('A->A', 'A->C', 'C->A', 'C->C'))}",
         f"transfer --regime shortcut --backbone {halves['backbone']} --generators data/checkpoints/fashion-mnist/shortcut "
         f"--train-domains clean adversarial --networks {' '.join(victims(halves))}"),
        *(("4", f"transfer-{origin}-to-{dataset}.png", across,
           f"{TITLES[origin]} to {TITLES[dataset]}, two_conv from random weights: {carried_over(origin, dataset)}",
           f"transfer --origin {origin} --dataset {dataset} --networks two_conv")
          for origin, dataset in (("imagenet13", "cifar10"), ("cifar10", "imagenet13"))),
        ("5", "ratio-fashion-mnist.png", both, mixtures("fashion-mnist"), "ratio"),
        ("5", "ratio-cifar10.png", both, mixtures("cifar10"), "ratio --dataset cifar10"),
        ("6", "epsilon-fashion-mnist.png", drops,
         "A->C of clean-trained ADSH: " + ", ".join(f"{clean[e]:.2f} at ε = {e:g}" for e in (0.05, 0.1, 0.2, 0.3))
         + f" (one generator scaled, {seeds} seeds); A->A of searchers trained on protected images, ADSH and DSDH, from "
         f"{min(kept):.2f} to {max(kept):.2f} (all retrained at each ε, {'one seed' if again == 1 else f'{again} seeds'})",
         f"epsilon --seeds {' '.join(sweep['scaled'][0]['seeds'])} "
         f"--retrain-seeds {' '.join(map(str, sweep['retrained_seeds']))}"),
    ]
    for name, epsilons in (("fashion-mnist", (0.05, 0.3)), ("cifar10", (0.032, 0.1)), ("imagenet13", (0.032, 0.1))):
        numbers = f"pairs-{name}.{'json' if name in UNLICENSED else 'png'}"
        stored = _stored(root, f"pairs-{name}")
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
    mixing = sum(run["seconds"] for run in _stored(root, "ratio-fashion-mnist")["runs"].values()) / 60
    return (f"{table}\n\nOn two CPU cores the victims of Fig. 3 on Fashion-MNIST took {sum(minutes.values()):.0f} minutes, "
            f"{minutes[last]:.0f} of them those of {last}{added}, and the victims of Fig. 5 {mixing:.0f}. The generator is "
            "that of `reference`, but for the third row.")


def speed_table(root: Path = rules.ROOT) -> str:
    """What the benchmarks measured, as markdown."""
    training, memory = _stored(root, "benchmark-training"), _stored(root, "benchmark-memory")
    retrieval, protect, sets = (_stored(root, f"benchmark-{name}") for name in ("retrieval", "protect", "datasets"))

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
         + (", in bfloat16" if training["bfloat16"] else ""), "training"),
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

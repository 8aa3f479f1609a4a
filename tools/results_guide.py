"""Our tables beside the paper's Table 1, for README.md and data/results/README.md, written from `data/results/`.

Links are those of README.md, from the repository's root.

Part of `tools/course_guide.py`; nothing here is typed by hand but what the paper says.
"""

from __future__ import annotations

import json
from pathlib import Path

import notebook_rules as rules

from pplkit.experiments import table1
from pplkit.experiments.common import networks
from pplkit.paper import METHODS, TOLERANCE, at_least_as_good, in_domain

TITLES = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "imagenet13": "ImageNet-13"}


def stored_result(root: Path, name: str) -> dict:
    """Content of data/results/NAME.json."""
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
    half = stored_result(root, f"table1-{name}")
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
    tables = {"": "", "-shortcut": "", "-two_conv-scatter": "", "-two_conv-scatter-gamef24c9c": ", learners' weight 40",
              "-two_conv-reference": ""}
    for name, changed in tables.items():
        stored = stored_result(root, f"table1-fashion-mnist{name}")
        met, strictly, total = _cells_met(stored)
        lines.append(f"| `{stored['regime']}`{changed} | `{stored['backbone']}` "
                     f"| {met} of {total} | {strictly} | {_alone(stored)} | {table1.cross_domain_ratio(stored['cells']):.2f} |")
    return "\n".join(lines)


def results_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 on Fashion-MNIST beside the paper's, from the stored results, as markdown."""
    stored, reference = (stored_result(root, f"table1-fashion-mnist{name}") for name in ("", "-two_conv-reference"))
    return (f"{cells_table(stored)}\n\n{_in_one_sentence(stored)} Each seed alone meets {_alone(stored)} cells. On average (in "
            f"brackets the game `reference`): {_means(stored, reference)}. {_drawn('fashion-mnist')}\n\n"
            f"{_network_codes(stored)}")


def shortcut_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 with surrogates of one network, its fresh seed and half the budget, as markdown."""
    stored, several = (stored_result(root, f"table1-fashion-mnist{name}") for name in ("-shortcut", ""))
    return (f"{cells_table(stored)}\n\n"
            f"{_in_one_sentence(stored)} Each seed alone meets {_alone(stored)} cells. On average (in brackets `several`): "
            f"{_means(stored, several)}. {_drawn('fashion-mnist-shortcut')}\n\n{fresh_seed(root)}\n\n"
            f"{_at_half_budget('fashion-mnist-eps0.15-shortcut', root)}")


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
    stored, fresh = (stored_result(root, f"{folder}table1-fashion-mnist-shortcut") for folder in ("", "fresh-seed/"))
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
            f"{table1.cross_domain_ratio(together):.2f} "
            "([stored](data/results/fresh-seed/table1-fashion-mnist-shortcut.json)).")


def reference_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 with the generator of most notebooks, as markdown."""
    stored = stored_result(root, "table1-fashion-mnist-two_conv-reference")
    return (f"{cells_table(stored)}\n\n{_in_one_sentence(stored)} {_drawn('fashion-mnist-two_conv-reference')}\n\n"
            f"{_at_half_budget('fashion-mnist-two_conv-eps0.15-reference', root)}")


def scatter_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 with the generator that also breaks up A->A, as markdown."""
    stored, reference, heavier = (stored_result(root, f"table1-fashion-mnist-two_conv{name}") for name in (
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
    for name in ("-two_conv-reference", "-reference", "-two_conv-scatter", "-two_conv-shortcut", "-shortcut", ""):
        stored = stored_result(root, f"table1-fashion-mnist{name}")
        rows = table1.compared([{**row, "mAP": row["seeds"]["0"]} for row in stored["cells"] if row["bits"] == 16])
        means = " | ".join(_mean(rows, group) for group in ACROSS)
        lines.append(f"| `{stored['regime']}` | `{stored['backbone']}` | {sum(row['met'] for row in rows)} | {means} |")
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
              "cifar10 pretrained shortcut": "cifar10-mobilenet_v3_small@32-cifar10-9d97fdaa-shortcut-game73840c",
              "cifar10 from imagenet13": "cifar10-mobilenet_v3_small@32-imagenet13-e695272e-game8b2372",
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
    stored = stored_result(root, f"table1-{name}")
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
    lines = ["| data set | game, network | images, seeds, run on | cells as good as the paper's | in-domain ones "
             "| C->C, trained on clean images: ADSH, DSDH | C->C, trained on protected ones: ADSH, DSDH "
             "| across domains, over the paper's |", "|---|---|---|---|---|---|---|---|"]
    for name in ("fashion-mnist", "fashion-mnist-two_conv-reference", *sorted(COLOUR.values())):
        stored = stored_result(root, f"table1-{name}")
        rows = table1.compared(stored["cells"])
        inside = [row["met"] for row in rows if in_domain(row["train"], row["task"])]
        seeds = len(stored["runs"])
        size = stored.get("images", {"database": 60_000})["database"]  # older files of Fashion-MNIST, which is always whole
        network, _, weights = stored["backbone"].partition(":")
        learned = Path(weights).name.partition("-")[0]  # data set of the pretraining
        elsewhere = f" on {TITLES[learned]}" if weights and learned != rows[0]["dataset"] else ""
        lines.append(f"| {TITLES[rows[0]['dataset']]} | `{stored['regime']}`{', other fields' if stored['game'] else ''}, "
                     f"`{network}`{', pretrained' if weights else ''}{elsewhere} "
                     f"| {size:,}, {seeds} seed{'s' if seeds > 1 else ''}, {_run_on(stored)} "
                     f"| {sum(row['met'] for row in rows)} of {len(rows)} "
                     f"| {sum(inside)} of {len(inside)} | {_searches_clean(rows, 'clean')} "
                     f"| {_searches_clean(rows, 'adversarial')} | {table1.cross_domain_ratio(stored['cells']):.2f} |")
    return "\n".join(lines)


def _run_on(stored: dict) -> str:
    """"CPU", or the GPU's name: the devices of all runs."""
    return ", ".join(sorted({device.replace("cpu", "CPU") for run in stored["runs"].values() for device in run["device"]}))


def _searches_clean(rows: list[dict], domain: str) -> str:
    """C->C of both victims with 16 bits, the paper's in brackets: "0.90, 0.79 (0.90, 0.70)"."""
    found = {row["method"]: row for row in rows if (row["task"], row["train"], row["bits"]) == ("C->C", domain, 16)}
    ours, theirs = (", ".join(f"{found[method][of]:.2f}" for method in METHODS) for of in ("mAP", "paper"))
    return f"{ours} ({theirs})"

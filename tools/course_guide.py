"""Keep what is said about the notebooks in agreement with the notebooks (part of `make refresh`).

The course map, the list of open exercises and the badges are made from the notebooks' title cells, exercises and
the one repository address in pyproject.toml, and written between `<!-- begin NAME -->` and `<!-- end NAME -->`
marks in the README files and in notebook 00. Only text changes; nothing needs to run again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import notebook_rules as rules
import student_edition as editions
from nbformat import NotebookNode

from pplkit.experiments import table1
from pplkit.paper import METHODS, at_least_as_good

_GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
_MARKING = re.compile(r"\*\*Marking\*\*\s*(.*?)\s*(?:\n\s*\n|</details>|\Z)", re.DOTALL)
INSTALL_TAG = "install"


@dataclass(frozen=True)
class Entry:
    """What a notebook says about itself."""

    stem: str  # "05_gradient_reversal"
    title: str  # "05 · Gradient reversal"
    question: str  # without its bold marks
    minutes: int  # of the learner
    needs: str  # prerequisites
    exercises: tuple[editions.Exercise, ...]
    marking: dict[str, str]  # number of an open exercise -> how its points are given


def read_entry(path: Path) -> Entry:
    """Read the title cell and the exercises of a notebook.

    Raises:
        ValueError: the title cell lacks something; says what.
    """
    notebook = rules.read(path)
    text = notebook.cells[0].source
    found = {
        f"a heading '# {path.stem[:2]} · Title'": re.search(
            rf"\A# ({path.stem[:2]} · .+)$", text, re.MULTILINE
        ),
        "a bold question": re.search(r"^\*\*(.+?)\*\*\s*$", text, re.MULTILINE),
        "a row '| Time | about N minutes ... |'": re.search(
            r"^\| Time \|[^|\n]*?(\d+) min", text, re.MULTILINE
        ),
        "a row '| You need | ... |'": re.search(r"^\| You need \| *(.+?) *\|\s*$", text, re.MULTILINE),
    }
    missing = [name for name, match in found.items() if match is None]
    if missing:
        raise ValueError(f"{path.stem}: the first cell needs {'; '.join(missing)}")
    title, question, minutes, needs = (match[1] for match in found.values())
    try:
        exercises = tuple(editions.exercises(notebook))
    except ValueError as error:
        raise ValueError(f"{path.stem}: {error}") from None
    marking = {}
    for exercise in exercises:
        if exercise.check is None:
            match = _MARKING.search(notebook.cells[exercise.solution].source)
            if match is None:
                raise ValueError(
                    f"{path.stem}: the model answer of {exercise.number} has no '**Marking**' line"
                )
            marking[exercise.number] = " ".join(match[1].lstrip(":. ").split())
    return Entry(path.stem, title, question, int(minutes), needs, exercises, marking)


def short_map(entries: list[Entry]) -> str:
    """Markdown table for learners: notebook, question, minutes."""
    rows = ["| Notebook | Question | Minutes |", "|---|---|---|"]
    rows += [f"| [{e.title}]({e.stem}.ipynb) | {e.question} | {e.minutes} |" for e in entries]
    return "\n".join([*rows, f"| all | | {sum(e.minutes for e in entries)} |"])


def full_map(entries: list[Entry]) -> str:
    """Markdown table for instructors: also prerequisites, exercises and points."""
    rows = [
        "| Notebook | Question | Minutes | You need | Exercises (open) | Points |",
        "|---|---|---|---|---|---|",
    ]
    for e in entries:
        still = sum(exercise.check is None for exercise in e.exercises)
        points = sum(exercise.points for exercise in e.exercises)
        rows.append(
            f"| [{e.title}]({e.stem}.ipynb) | {e.question} | {e.minutes} | {e.needs} "
            f"| {len(e.exercises)} ({still}) | {points} |"
        )
    everything = [exercise for e in entries for exercise in e.exercises]
    return "\n".join(
        [
            *rows,
            f"| all | | {sum(e.minutes for e in entries)} | | {len(everything)} "
            f"({sum(exercise.check is None for exercise in everything)}) "
            f"| {sum(exercise.points for exercise in everything)} |",
        ]
    )


def marking_guide(entries: list[Entry]) -> str:
    """Markdown table of the open exercises: points and how to give them."""
    rows = ["| Exercise | Notebook | Minutes | Points | Marking |", "|---|---|---|---|---|"]
    for e in entries:
        for exercise in e.exercises:
            if exercise.check is None:
                rows.append(
                    f"| {exercise.number} | [{e.title}]({e.stem}.ipynb) | {exercise.minutes} | {exercise.points} "
                    f"| {e.marking[exercise.number].replace('|', chr(92) + '|')} |"
                )
    return "\n".join(rows)


def repository(pyproject: Path = rules.ROOT / "pyproject.toml") -> str:
    """The one address of the project, [tool.pplkit] repository in pyproject.toml; "" while there is none."""
    return tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["pplkit"]["repository"]


def badges(address: str, stem: str) -> str:
    """Markdown badges that open a notebook on Colab and Binder; "" without an address.

    Raises:
        ValueError: an address that Colab and Binder cannot open.
    """
    if not address:
        return ""
    match = _GITHUB.fullmatch(address)
    if match is None:
        raise ValueError(
            f"repository is {address!r}; badges need https://github.com/OWNER/NAME, or '' for none"
        )
    colab = f"https://colab.research.google.com/github/{match[1]}/blob/main/notebooks/{stem}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{match[1]}/main?labpath=notebooks/{stem}.ipynb"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def install_cell(address: str) -> str:
    """Source of the cell that installs the project where a badge has opened the notebook."""
    return (
        "# On Colab this installs the course; elsewhere it does nothing.\nimport sys\n\n"
        f'if "google.colab" in sys.modules:\n    %pip install -q git+{address}'
    )


def set_badges(notebook: NotebookNode, stem: str, address: str) -> None:
    """Give a notebook its badges and its install cell, or take them away without an address, in place."""
    text = re.sub(
        r"\n\n<!-- begin badges -->.*?<!-- end badges -->", "", notebook.cells[0].source, flags=re.DOTALL
    )
    line = badges(address, stem)
    if line:
        heading, separator, rest = text.partition("\n")
        text = f"{heading}\n\n<!-- begin badges -->\n{line}\n<!-- end badges -->{separator}{rest}"
    notebook.cells[0].source = text
    notebook.cells = [cell for cell in notebook.cells if INSTALL_TAG not in cell.metadata.get("tags", [])]
    if address:
        cell = nbformat.v4.new_code_cell(install_cell(address), metadata={"tags": [INSTALL_TAG]})
        cell.id = f"{stem[:2]}-install"
        notebook.cells.insert(1, cell)


def fill(text: str, parts: dict[str, Callable[[], str]], where: str) -> str:
    """Put generated parts between their marks.

    Raises:
        ValueError: a mark for an unknown part, or one that is not closed.
    """
    for name in re.findall(r"<!-- begin ([\w ]+) -->", text):
        if name == "badges":
            continue
        if name not in parts:
            raise ValueError(f"{where}: no part {name!r}; there are {', '.join(parts)}")
        pattern = rf"(<!-- begin {name} -->).*?(<!-- end {name} -->)"
        if not re.search(pattern, text, re.DOTALL):
            raise ValueError(f"{where}: <!-- begin {name} --> is not followed by <!-- end {name} -->")
        content = parts[name]()
        text = re.sub(pattern, lambda m, c=content: f"{m[1]}\n\n{c}\n\n{m[2]}", text, flags=re.DOTALL)
    return text


def _stored(root: Path, name: str) -> dict:
    return json.loads((root / "data" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def _in_one_sentence(stored: dict) -> str:
    """How many of a table's cells are met, and how much is found across domains."""
    rows = table1.compared(stored["cells"])
    met = f"{sum(row['met'] for row in rows)} of {len(rows)}"
    ratio = table1.cross_domain_ratio(stored["cells"])
    return f"{met} cells are at least as good as the paper's; mean cross-domain mAP is {ratio:.2f} times the paper's."


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


def _at_half_budget(half: dict) -> str:
    """What a table with ε = 0.15 says beside the paper's at 0.3."""
    rows = table1.compared(half["cells"])
    shown = ", ".join(f"{row['task']} {row['mAP']:.3f} ({row['paper']:.3f})" for row in rows
                      if (row["method"], row["train"]) == ("adsh", "clean"))
    met, seeds = sum(row["met"] for row in rows), len(half["runs"])
    epsilon, ratio = half["generator"]["epsilon"], table1.cross_domain_ratio(half["cells"])
    return (f"At half the paper's budget (ε = {epsilon:g}, 16 bits, {seeds} seed{'s' if seeds > 1 else ''}) "
            f"{met} of {len(rows)} cells are as good as\nthe paper's at its full one; mean cross-domain mAP is {ratio:.2f} "
            f"times the paper's. ADSH trained on clean images:\n{shown}.")


def results_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 on Fashion-MNIST beside the paper's, from the stored results, as markdown."""
    stored, half = _stored(root, "table1-fashion-mnist"), _stored(root, "table1-fashion-mnist-eps0.15")
    return f"{cells_table(stored)}\n\n{_in_one_sentence(stored)}\n\n{_at_half_budget(half)}"


def scatter_table(root: Path = rules.ROOT) -> str:
    """Our Table 1 with the generator that also breaks up A->A, as markdown."""
    stored, reference, half = (_stored(root, f"table1-fashion-mnist{name}") for name in ("-scatter", "", "-eps0.15-scatter"))
    by_domain = []
    for domain, trained in (("clean", "clean"), ("adversarial", "protected")):
        met, before = ([row["met"] for row in table1.compared(table["cells"]) if row["train"] == domain]
                       for table in (stored, reference))
        by_domain.append(f"of {len(met)} with searchers trained on {trained} images {sum(met)} (reference: {sum(before)})")
    def single(table: dict) -> str:
        """Cells met by each seed alone."""
        rows = table1.compared(table["cells"])
        return ", ".join(str(sum(at_least_as_good(row["seeds"][seed], row["paper"], row["train"], row["task"]) for row in rows))
                         for seed in table["runs"])

    return (f"{cells_table(stored)}\n\n{_in_one_sentence(stored)} Cells met {', '.join(by_domain)}. "
            f"Generators differ: each seed alone meets {single(stored)} cells (reference: {single(reference)}).\n\n"
            f"{_at_half_budget(half)}")


def colour_table(dataset: str, root: Path = rules.ROOT) -> str:
    """Our Table 1 on a colour data set beside the paper's, and what it was run with, as markdown."""
    stored = _stored(root, f"table1-{dataset}")
    images, seeds = stored["images"], len(stored["runs"])
    devices = ", ".join(sorted({device for run in stored["runs"].values() for device in run["device"]}))
    run = (f"{images['database']:,} database images, {images['train']:,} of them for training, {images['query']:,} queries, "
           f"ε = {stored['generator']['epsilon']:g}, {seeds} seed{'s' if seeds > 1 else ''}, {devices}")
    network = [row for row in stored["cells"] if (row["method"], row["codes"], row["bits"]) == ("adsh", "network", 16)]
    domains = ", ".join(f"{row['task']} {row['mAP']:.3f}" for row in network if row["train"] == "clean")
    protected = ", ".join(f"{row['task']} {row['mAP']:.3f}" for row in network if row["train"] == "adversarial")
    return (f"{run}.\n\n{cells_table(stored)}\n\n{_in_one_sentence(stored)} Most of these are cross-domain cells, which a weak "
            f"searcher reaches by itself. ADSH with network codes on both sides, 16 bits, trained on clean images: {domains}; "
            f"on protected images: {protected}.")


TITLES = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "imagenet13": "ImageNet-13"}
UNLICENSED = ("cifar10", "imagenet13")  # no picture of them may be passed on, see data/README.md


def figures_table(root: Path = rules.ROOT) -> str:
    """What the paper says of its Figs. 3 to 7, and what our stored runs say, as markdown."""
    transfer = _stored(root, "transfer-fashion-mnist")
    measured = {(c["method"], c["network"], c["scenario"]): c["mAP"] for c in transfer["cells"]}
    networks = list(dict.fromkeys(c["network"] for c in transfer["cells"]))
    met = "; ".join(f"{method.upper()} " + ", ".join(
        f"{network} " + "/".join(f"{measured[method, network, scenario]:.2f}" for scenario in ("C->C", "C->A", "A->C"))
        for network in networks if network != transfer["generator"]["backbone"]) for method in METHODS)

    def carried_over(origin: str, dataset: str) -> str:
        stored = _stored(root, f"transfer-{origin}-to-{dataset}")
        own = {(c["method"], c["task"]): c["mAP"] for c in _stored(root, f"table1-{dataset}")["cells"]
               if (c["train"], c["codes"], c["bits"]) == ("clean", "network", 16)}
        rows = [c for c in stored["cells"] if c["method"] == "adsh"]
        return f"ADSH {rows[0]['mAP']:.2f} in C->C, " + ", ".join(
            f"{c['scenario']} {c['mAP']:.2f} (own generator {own['adsh', c['scenario']]:.2f})" for c in rows[1:])

    def mixtures(dataset: str) -> str:
        worst: dict[tuple[str, float], float] = {}
        for c in _stored(root, f"ratio-{dataset}")["cells"]:
            worst[c["method"], c["share"]] = min(worst.get((c["method"], c["share"]), 1.0), c["mAP"])
        return "worst scenario " + ", ".join(f"{m.upper()} {worst[m, 0.0]:.2f} at share 0, {worst[m, 0.1]:.2f} at 0.1, "
                                             f"{worst[m, 0.5]:.2f} at 0.5" for m in METHODS)

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
    carried = "the protection carries over to other networks (CIFAR-10, pretrained)"
    across = '"generalizes well across different networks and datasets" (pretrained)'
    drops = 'cross-domain search "drops suddenly"; A->A of models trained on adversarial data is kept'
    subtle = '"perceptually indistinguishable", with "moderate distortions on Fashion MNIST"'
    seeds = len(sweep["scaled"][0]["seeds"])
    rows = [
        ("3", "transfer-fashion-mnist.png", carried,
         f"Fashion-MNIST, networks that the generator never met, random weights, C->C/C->A/A->C: {met}",
         f"transfer --networks {' '.join(networks)}"),
        *(("4", f"transfer-{origin}-to-{dataset}.png", across,
           f"{TITLES[origin]} to {TITLES[dataset]}: {carried_over(origin, dataset)}",
           f"transfer --origin {origin} --dataset {dataset} --networks two_conv")
          for origin, dataset in (("imagenet13", "cifar10"), ("cifar10", "imagenet13"))),
        ("5", "ratio-fashion-mnist.png", both, f"Fashion-MNIST: {mixtures('fashion-mnist')}", "ratio"),
        ("5", "ratio-cifar10.png", both, f"CIFAR-10: {mixtures('cifar10')}", "ratio --dataset cifar10"),
        ("6", "epsilon-fashion-mnist.png", drops,
         "A->C of clean-trained ADSH: " + ", ".join(f"{clean[e]:.2f} at ε = {e:g}" for e in (0.05, 0.1, 0.2, 0.3))
         + f" (one generator scaled, {seeds} seeds); A->A from {min(kept):.2f} to {max(kept):.2f} (retrained)", "epsilon"),
    ]
    for name, epsilons in (("fashion-mnist", (0.05, 0.3)), ("cifar10", (0.032, 0.1)), ("imagenet13", (0.032, 0.1))):
        numbers = f"pairs-{name}.{'json' if name in UNLICENSED else 'png'}"
        rows.append(("7", numbers, subtle, f"{TITLES[name]}: {visible(name, epsilons)}",
                     f"pairs --dataset {name} --epsilons {' '.join(map(str, epsilons))}"))
    return "\n".join(["| Figure | the paper says | ours, one seed unless stated | made by |", "|---|---|---|---|",
                      *(f"| [{number}](data/results/{name}) | {claim} | {ours} "
                        f"| `python -m pplkit.experiments.{command}` |" for number, name, claim, ours, command in rows)])


def update(root: Path = rules.ROOT, *, write: bool = True) -> list[Path]:
    """Bring README files and notebooks up to date; the files that were (or, without `write`, would be) changed."""
    folder = root / "notebooks"
    notebooks = rules.course_notebooks(folder)
    entries = [read_entry(path) for path in notebooks]
    address = repository(root / "pyproject.toml")

    def outside() -> str:
        return short_map(entries).replace("](", "](notebooks/")

    parts = {"course map": lambda: short_map(entries)}
    full = {"course map": lambda: full_map(entries), "marking guide": lambda: marking_guide(entries)}
    changed = []
    for path, offered in {root / "README.md": {"course map": outside, "results": lambda: results_table(root),
                                             "figures": lambda: figures_table(root), "scatter": lambda: scatter_table(root),
                                             **{name: lambda name=name: colour_table(name, root)
                                                for name in ("cifar10", "imagenet13")}},
                          folder / "README.md": full}.items():
        if path.is_file():
            before = path.read_text(encoding="utf-8")
            after = fill(before, offered, path.name)
            if after != before:
                changed.append(path)
                if write:
                    path.write_text(after, encoding="utf-8")
    for path in notebooks:
        notebook, before = rules.read(path), rules.read(path)
        set_badges(notebook, path.stem, address)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = fill(cell.source, parts, path.stem)
        if notebook != before:
            changed.append(path)
            if write:
                whole = path.with_suffix(".new")  # a stop halfway must not leave an empty notebook
                nbformat.write(notebook, whole)
                whole.replace(path)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0, or 1 when a notebook or README cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    try:
        changed = update()
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        "\n".join(f"updated {path.relative_to(rules.ROOT)}" for path in changed) or "everything is up to date"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Keep what is said about the notebooks in agreement with the notebooks (part of `make refresh`).

The course map, the list of open exercises and the badges are made from the notebooks' title cells, exercises and
the one repository address in pyproject.toml, and written between `<!-- begin NAME -->` and `<!-- end NAME -->`
marks in the README files and in notebook 00. Only text changes; nothing needs to run again.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import figures_guide as figures
import nbformat
import notebook_rules as rules
import results_guide as results
import student_edition as editions
from nbformat import NotebookNode

from pplkit.storage import write_bytes

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
    in_readme = {"course map": outside, "overview": lambda: results.overview_table(root),
                 "in short": lambda: figures.in_short(root),
                 "results": lambda: results.results_table(root), "speed": lambda: figures.speed_table(root)}
    tables = {"games": results.games_table, "apart": results.apart_table, "reference": results.reference_table,
              "shortcut": results.shortcut_table, "scatter": results.scatter_table, "figures": figures.figures_table,
              "networks": figures.networks_table, "others": figures.others_table, "trials": results.trials_table,
              **{name: partial(results.colour_table, stored)
                 for name, stored in results.COLOUR.items()}}
    in_results = {name: lambda table=table: table(root=root).replace("](data/results/", "](") for name, table in tables.items()}
    for path, offered in {root / "README.md": in_readme, folder / "README.md": full,
                          root / "data" / "results" / "README.md": in_results}.items():
        if path.is_file():
            before = path.read_text(encoding="utf-8")
            after = fill(before, offered, path.name)
            if after != before:
                changed.append(path)
                if write:
                    write_bytes(path, after.encode())
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

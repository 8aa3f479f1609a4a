"""Make the student edition and the instructor's answer key from the notebooks (`make student`).

`build/student/` gets the notebooks with every solution replaced by a stub (nbgrader's ClearSolutions), outputs
cleared and solution cells open; `build/answer_key/` the solution version as HTML with the solutions shown, and an
index of all exercises. Neither needs a network or a kernel. Nothing else differs between the editions, except that
links out of the folder go one level further up.
"""

from __future__ import annotations

import argparse
import ast
import copy
import html
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import notebook_rules as rules
from IPython.core.inputtransformer2 import TransformerManager
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ClearOutputPreprocessor
from nbformat import NotebookNode
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.nbgraderformat.common import SchemaMismatchError, ValidationError
from nbgrader.preprocessors import ClearSolutions

BUILD = rules.ROOT / "build"
CODE_STUB = "# your code here\nraise NotImplementedError"
TEXT_STUB = "*Your answer here.*"
BEGIN, END = "BEGIN SOLUTION", "END SOLUTION"
_HEADING = re.compile(r"\*\*Exercise (\d\d\.\d+)\*\*\s*\((?:difficulty )?(●[●○]{2}), ~(\d+) min(?:, open)?\)")
_LINK_UP = re.compile(r"\]\(\.\./")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook; cells are positions in the notebook."""

    name: str  # grade id, e.g. "01-ap"
    number: str  # "01.2", as the learner reads it
    difficulty: str  # "●○○" to "●●●"
    minutes: int
    points: int
    solution: int  # the solution cell, or the cell of an open exercise
    check: int | None  # the check cell; None for an open exercise, which a person marks


def grading(cell: NotebookNode) -> dict:
    """The cell's nbgrader metadata, empty if it has none."""
    return cell.metadata.get("nbgrader", {})


def is_solution(cell: NotebookNode) -> bool:
    """Whether the cell holds the solution of an exercise with a check."""
    return bool(grading(cell).get("solution")) and not grading(cell).get("grade")


def is_check(cell: NotebookNode) -> bool:
    """Whether the cell checks the answer to an exercise."""
    return bool(grading(cell).get("grade")) and not grading(cell).get("solution")


def is_open(cell: NotebookNode) -> bool:
    """Whether the cell is an open exercise with a model answer."""
    return bool(grading(cell).get("grade")) and bool(grading(cell).get("solution"))


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """The exercises of a notebook in order.

    Raises:
        ValueError: with all that is wrong with their cells, see `exercise_problems`.
    """
    found, problems = _read_exercises(notebook)
    if problems:
        raise ValueError("; ".join(problems))
    return found


def exercise_problems(notebook: NotebookNode, stem: str) -> list[str]:
    """What keeps a notebook's exercises from being gradable, complete and without spoilers; empty if nothing."""
    problems = []
    try:
        MetadataValidator().validate_nb(notebook)
    except (ValidationError, SchemaMismatchError) as error:
        return [f"nbgrader: {error}"]
    problems += _read_exercises(notebook)[1]
    for number, cell in enumerate(notebook.cells):
        regions = [line for line in cell.source.split("\n") if BEGIN in line or END in line]
        graded = is_solution(cell) or is_open(cell)
        if graded and not (len(regions) == 2 and BEGIN in regions[0] and END in regions[1]):
            problems.append(f"cell {number} must have one region from {BEGIN} to {END}")
        if regions and not graded:
            problems.append(f"cell {number} has a solution region and is no solution cell")
        if is_solution(cell) and not cell.metadata.get("jupyter", {}).get("source_hidden"):
            problems.append(f"cell {number} is a solution and not collapsed (jupyter.source_hidden)")
        if is_open(cell) and any(not line.strip().startswith("<!--") for line in regions):
            problems.append(f"cell {number}: hide the marks of the region, as <!-- ### {BEGIN} -->")
        if is_open(cell) and "<details>" not in cell.source.partition(BEGIN)[2]:
            problems.append(f"cell {number}: fold the model answer in <details> inside the solution region")
        name = grading(cell).get("grade_id", "")
        if name and not name.startswith(stem[:2] + "-"):
            problems.append(f"grade id {name!r} must start with {stem[:2] + '-'!r}")
    return problems + _dependency_problems(notebook)


def _read_exercises(notebook: NotebookNode) -> tuple[list[Exercise], list[str]]:
    found: list[Exercise] = []
    problems: list[str] = []
    waiting: int | None = None  # a solution cell whose check has not come yet
    heading: re.Match | None = None
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and (match := _HEADING.search(cell.source)):
            heading = match
        if not (is_solution(cell) or is_check(cell) or is_open(cell)):
            continue
        name = grading(cell).get("grade_id", "")
        if is_solution(cell):
            if waiting is not None:
                problems.append(f"cell {waiting} is a solution without a check")
            waiting = number
            continue
        if is_open(cell) and waiting is not None:
            problems.append(f"cell {waiting} is a solution without a check")
        if is_check(cell):
            wanted = f"{grading(notebook.cells[waiting])['grade_id']}-check" if waiting is not None else None
            if name != wanted:
                problems.append(f"cell {number} checks {name!r}, which is not the solution before it")
                waiting = None
                continue
        if heading is None:
            problems.append(
                f"{name!r} has no heading '**Exercise NN.M** (difficulty ●○○, ~5 min)' of its own before it"
            )
        else:
            solution, check = (number, None) if is_open(cell) else (waiting, number)
            found.append(
                Exercise(
                    name=name.removesuffix("-check"),
                    number=heading[1],
                    difficulty=heading[2],
                    minutes=int(heading[3]),
                    points=int(grading(cell)["points"]),
                    solution=solution,
                    check=check,
                )
            )
        waiting = heading = None
    if waiting is not None:
        problems.append(f"cell {waiting} is a solution without a check")
    return found, problems


def _dependency_problems(notebook: NotebookNode) -> list[str]:
    """Cells that use a learner's function: they would stop in the student edition."""
    transform = TransformerManager().transform_cell  # magics become function calls
    theirs: set[str] = set()
    problems = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        tree = ast.parse(transform(cell.source))
        if is_solution(cell):
            defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
            if len(defined) != len([node for node in tree.body if not _is_text(node)]):
                problems.append(f"cell {number}: a solution cell holds functions or classes and nothing else")
            theirs |= defined
        elif not is_check(cell):
            problems += [
                f"cell {number} uses {name!r}, which the learner writes"
                for name in sorted(theirs & _names(tree))
            ]
    return problems


def _names(tree: ast.Module) -> set[str]:
    """Names that a cell uses, those in the arguments of magics included."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if "get_ipython" in names:
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        names.update(re.findall(r"\w+", " ".join(text for text in texts if isinstance(text, str))))
    return names


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def student(notebook: NotebookNode) -> NotebookNode:
    """The student edition of a notebook: stubs for solutions, no outputs, nothing collapsed."""
    result = copy.deepcopy(notebook)
    clear = ClearSolutions(code_stub={"python": CODE_STUB}, text_stub=TEXT_STUB)
    result, resources = clear.preprocess(result, {})
    result, _ = ClearOutputPreprocessor(enabled=True).preprocess(result, resources)
    _open_solutions(result)
    for cell in result.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK_UP.sub("](../../", cell.source)
    return result


def answer_key(notebook: NotebookNode) -> str:
    """HTML of the solution version with the solutions shown."""
    result = copy.deepcopy(notebook)
    _open_solutions(result)
    for cell in result.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK_UP.sub("](../../", cell.source)
            if is_open(cell):
                cell.source = cell.source.replace("<details>", "<details open>")
    return HTMLExporter().from_notebook_node(result)[0]


def _open_solutions(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if is_solution(cell):
            settings = cell.metadata.get("jupyter", {})
            settings.pop("source_hidden", None)
            if not settings:
                cell.metadata.pop("jupyter", None)


def write_index(folder: Path, table: dict[str, list[Exercise]]) -> Path:
    """Write the answer key's first page: all exercises with points and minutes, linked to their notebook."""
    rows = [
        f'<tr><td><a href="{html.escape(stem)}.html">{html.escape(stem)}</a></td><td>{exercise.number}</td>'
        f"<td>{html.escape(exercise.name)}</td><td>{exercise.difficulty}</td><td>{exercise.minutes}</td>"
        f"<td>{exercise.points}</td><td>{'by its check' if exercise.check is not None else 'by you'}</td></tr>"
        for stem, listed in table.items()
        for exercise in listed
    ]
    everything = [exercise for listed in table.values() for exercise in listed]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>pplkit: answer key</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "td,th{padding:.2em 1em .2em 0;text-align:left}</style><h1>Answer key</h1>"
        f"<p>{len(everything)} exercises, {sum(exercise.points for exercise in everything)} points. "
        "For instructors: the pages show every solution.</p><table><tr><th>Notebook</th><th>Exercise</th>"
        "<th>Grade id</th><th>Difficulty</th><th>Minutes</th><th>Points</th><th>Marked</th></tr>"
        + "".join(rows)
        + "</table></html>\n"
    )
    target = folder / "index.html"
    target.write_text(page, encoding="utf-8")
    return target


def build(notebooks: list[Path], folder: Path) -> dict[str, list[Exercise]]:
    """Write `folder`/student and `folder`/answer_key; the exercises of each notebook. Other notebooks' editions stay.

    Raises:
        ValueError: a notebook's exercises are not in order; nothing has been written then.
    """
    originals = {path.stem: rules.read(path) for path in notebooks}
    problems = [
        f"{stem}: {problem}"
        for stem, notebook in originals.items()
        for problem in exercise_problems(notebook, stem)
    ]
    if problems:
        raise ValueError("\n".join(problems))
    course = {path.stem for path in notebooks[0].parent.glob("*.ipynb")}
    for name, suffix in (("student", ".ipynb"), ("answer_key", ".html")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for stale in (folder / name).glob(f"[0-9][0-9]_*{suffix}"):
            if stale.stem not in course:
                stale.unlink()
    for stem, notebook in originals.items():
        nbformat.write(student(notebook), folder / "student" / f"{stem}.ipynb")
        (folder / "answer_key" / f"{stem}.html").write_text(answer_key(notebook), encoding="utf-8")
    table = {stem: exercises(notebook) for stem, notebook in originals.items()}
    there = [path for path in rules.course_notebooks(notebooks[0].parent)
             if (folder / "answer_key" / f"{path.stem}.html").is_file()]
    write_index(folder / "answer_key", {path.stem: exercises(rules.read(path)) for path in there})
    return table


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0, or 1 when a notebook's exercises are not in order, 2 for wrong names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks, e.g. 09; all when none is named")
    parser.add_argument("--source", type=Path, default=rules.NOTEBOOKS, help="folder of the notebooks")
    parser.add_argument(
        "--output", type=Path, default=BUILD, help="folder that gets student/ and answer_key/"
    )
    options = parser.parse_args(arguments)
    try:
        notebooks = rules.course_notebooks(options.source, options.names)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        table = build(notebooks, options.output)
    except ValueError as error:
        print(f"error: the exercises are not in order, nothing was written:\n{error}", file=sys.stderr)
        return 1
    for stem, listed in table.items():
        checked = sum(exercise.check is not None for exercise in listed)
        print(f"{stem:<24} {checked} exercises with a check, {len(listed) - checked} open")
    print(
        f"\nStudents: {options.output / 'student'}\nInstructor: {options.output / 'answer_key' / 'index.html'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

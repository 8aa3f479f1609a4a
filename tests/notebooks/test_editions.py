"""The student edition: every solution passes its check, every stub fails it, and nothing else differs.

An exercise is tried without executing its notebook: the first code cell (imports), the parameters cell, the
solution and the check must do on their own, which also keeps exercises independent of each other.
"""

import contextlib
import copy
import io
import os
import re
import sys
from pathlib import Path

import matplotlib as mpl
import nbformat
import notebook_rules as rules
import pytest
import student_edition as editions
from nbgrader.apps.api import NbGraderAPI
from traitlets.config import Config

from pplkit.checks import CheckFailed

COURSE = sorted(rules.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
AT_LEAST = {"01": 5, "02": 5, "05": 5, "06": 5}  # exercises with a check or open; 3 elsewhere

each_notebook = pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)


def setting(notebook: nbformat.NotebookNode) -> dict:
    """Names that an exercise may build on: those of the imports and of the parameters."""
    numbered = [cell for _, cell in rules.code_cells(notebook)]
    imports = next(cell for cell in numbered if not rules.tags(cell) & {"install", "parameters"})
    names: dict = {"__name__": "exercise"}
    with mpl.rc_context(), contextlib.redirect_stdout(io.StringIO()):
        for cell in numbered:
            if cell is imports or "parameters" in rules.tags(cell):
                exec(compile(cell.source, "first cells", "exec"), names)
    return names


def attempt(names: dict, solution: str, check: str) -> str:
    """Run a solution cell and its check, each given by its source; what the check printed."""
    names = dict(names)
    printed = io.StringIO()
    with mpl.rc_context():
        exec(compile(solution, "solution", "exec"), names)
        with contextlib.redirect_stdout(printed):
            exec(compile(check, "check", "exec"), names)
    return printed.getvalue()


@each_notebook
def test_exercises_are_in_order(path: Path):
    assert editions.exercise_problems(rules.read(path), path.stem) == []


@each_notebook
def test_there_are_enough_exercises(path: Path):
    listed = editions.exercises(rules.read(path))
    assert len(listed) >= AT_LEAST.get(path.stem[:2], 3)
    numbers = [exercise.number for exercise in listed]
    assert numbers == [f"{path.stem[:2]}.{place}" for place in range(1, len(listed) + 1)]


def test_grade_ids_and_notebook_names_are_unique():
    names = [exercise.name for path in COURSE for exercise in editions.exercises(rules.read(path))]
    assert len(set(names)) == len(names)


@each_notebook
def test_every_solution_passes_and_every_stub_fails(path: Path):
    notebook, stubs = rules.read(path), editions.student(rules.read(path))
    names = setting(notebook)
    for exercise in editions.exercises(notebook):
        if exercise.check is None:
            continue
        check = notebook.cells[exercise.check].source
        printed = attempt(names, notebook.cells[exercise.solution].source, check)
        assert printed.startswith("✓ "), f"{exercise.name}: {printed}"
        with pytest.raises(CheckFailed, match="^not implemented yet"):
            attempt(names, stubs.cells[exercise.solution].source, check)


def test_one_edition_made_anew_leaves_the_others(tmp_path: Path):
    editions.build(COURSE[:2], tmp_path)
    (tmp_path / "student" / "00_notes.txt").write_text("the teacher's own")
    for gone in (tmp_path / "student" / "77_gone.ipynb", tmp_path / "answer_key" / "77_gone.html"):
        gone.write_text("of a notebook that there is no more")
    assert list(editions.build(COURSE[1:2], tmp_path)) == [COURSE[1].stem]
    assert {path.name for path in (tmp_path / "student").iterdir()} == {*(f"{path.stem}.ipynb" for path in COURSE[:2]),
                                                                       "00_notes.txt"}
    index = (tmp_path / "answer_key" / "index.html").read_text(encoding="utf-8")
    assert all(f"{path.stem}.html" in index for path in COURSE[:2]) and COURSE[2].stem not in index


@each_notebook
def test_nothing_else_differs(path: Path):
    """Cell by cell, against an independent reading of what may differ."""
    notebook = rules.read(path)
    solved, stubs = copy.deepcopy(notebook), editions.student(notebook)
    assert notebook == solved, "making the student edition changed the notebook"
    assert stubs.metadata == solved.metadata and len(stubs.cells) == len(solved.cells)
    for number, (ours, theirs) in enumerate(zip(solved.cells, stubs.cells, strict=True)):
        where = f"cell {number}"
        assert theirs.source == expected_source(ours), where
        metadata = copy.deepcopy(ours.metadata)
        if "### BEGIN SOLUTION" in ours.source and ours.cell_type == "code":
            del metadata["jupyter"]
        assert theirs.metadata == metadata, where
        assert (theirs.cell_type, theirs.id) == (ours.cell_type, ours.id), where
        if ours.cell_type == "code":
            assert (theirs.outputs, theirs.execution_count) == ([], None), where


def expected_source(cell: nbformat.NotebookNode) -> str:
    if cell.cell_type == "markdown":
        pattern, stub = r"<!-- ### BEGIN SOLUTION -->.*<!-- ### END SOLUTION -->", "*Your answer here.*"
        return re.sub(pattern, stub, cell.source, flags=re.DOTALL).replace("](../", "](../../")
    pattern = r"^( *)### BEGIN SOLUTION\n.*### END SOLUTION"
    stub = r"\1# your code here\n\1raise NotImplementedError"
    return re.sub(pattern, stub, cell.source, flags=re.DOTALL | re.MULTILINE)


def test_links_of_the_student_edition_arrive():
    for path in COURSE:
        for cell in editions.student(rules.read(path)).cells:
            if cell.cell_type != "markdown":
                continue
            for target in re.findall(r"\]\((?!https?:|#|attachment:)([^)#]+)[^)]*\)", cell.source):
                folder = (
                    rules.NOTEBOOKS if re.match(r"\d\d_|README", target) else rules.ROOT / "build" / "student"
                )
                assert (folder / target).resolve().exists(), f"{path.stem}: {target}"


def test_editions_are_written(tmp_path: Path, capsys):
    assert editions.main(["--output", str(tmp_path)]) == 0
    students = sorted((tmp_path / "student").iterdir())
    assert [path.name for path in students] == [path.name for path in COURSE]
    for path in students:
        assert "BEGIN SOLUTION" not in path.read_text(encoding="utf-8")
        nbformat.validate(rules.read(path))
    index = (tmp_path / "answer_key" / "index.html").read_text(encoding="utf-8")
    total = 0
    for path in COURSE:
        listed = editions.exercises(rules.read(path))
        total += len(listed)
        assert all(f"<td>{exercise.name}</td>" in index for exercise in listed)
        page = (tmp_path / "answer_key" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert page.count("BEGIN SOLUTION") >= sum(exercise.check is not None for exercise in listed)
    assert f"{total} exercises" in index
    assert str(tmp_path / "student") in capsys.readouterr().out


# A tiny notebook, for what must be refused and for nbgrader's own round trip.

SOLUTION = (
    'def double(x):\n    """Twice x."""\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION'
)
CHECK = 'assert double(3) == 6, "not twice"'
OPEN = (
    "**Exercise 01.2** (difficulty ●●○, ~10 min)\nWhy? See [the code](../pplkit/data.py).\n\n"
    "<!-- ### BEGIN SOLUTION -->\n<details><summary>Model answer</summary>\n\nBecause.\n</details>\n"
    "<!-- ### END SOLUTION -->"
)


def graded(cell: nbformat.NotebookNode, name: str, kind: str) -> nbformat.NotebookNode:
    """Give a cell the nbgrader metadata of a "solution", "check" or "open" cell."""
    cell.metadata["nbgrader"] = {
        "grade": kind != "solution",
        "solution": kind != "check",
        "locked": kind == "check",
        "task": False,
        "grade_id": name,
        "schema_version": 3,
    }
    if kind == "solution":
        cell.metadata["jupyter"] = {"source_hidden": True}
    else:
        cell.metadata["nbgrader"]["points"] = 2
    return cell


def tiny(solution: str = SOLUTION, check: str = CHECK, task: str = OPEN, extra: str = "1 + 1"):
    new = nbformat.v4
    notebook = new.new_notebook(
        metadata={"kernelspec": rules.KERNELSPEC, "language_info": rules.LANGUAGE_INFO}
    )
    notebook.cells = [
        new.new_markdown_cell("# Tiny"),
        new.new_code_cell("import math"),
        new.new_markdown_cell("**Exercise 01.1** (difficulty ●○○, ~5 min)\nDouble it."),
        graded(new.new_code_cell(solution), "01-double", "solution"),
        graded(new.new_code_cell(check), "01-double-check", "check"),
        graded(new.new_markdown_cell(task), "01-why", "open"),
        new.new_code_cell(extra),
    ]
    return notebook


def test_tiny_notebook_is_in_order():
    notebook = tiny()
    assert editions.exercise_problems(notebook, "01_tiny") == []
    first, second = editions.exercises(notebook)
    assert (first.name, first.number, first.minutes, first.points, first.check) == (
        "01-double",
        "01.1",
        5,
        2,
        4,
    )
    assert (second.name, second.difficulty, second.check) == ("01-why", "●●○", None)
    stubs = editions.student(notebook)
    assert stubs.cells[3].source.endswith(
        '"""Twice x."""\n    # your code here\n    raise NotImplementedError'
    )
    assert stubs.cells[5].source.endswith("(../../pplkit/data.py).\n\n*Your answer here.*")
    assert "jupyter" not in stubs.cells[3].metadata
    assert "<details open" in editions.answer_key(notebook)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n: n.cells[5].metadata.nbgrader.update(grade_id="01-double"), "Duplicate grade id"),
        (lambda n: n.cells[4].metadata.nbgrader.pop("points"), "nbgrader"),
        (lambda n: n.cells[4].metadata.nbgrader.update(schema_version=1), "nbgrader"),
        (lambda n: n.cells[3].metadata.pop("jupyter"), "not collapsed"),
        (
            lambda n: n.cells[4].metadata.nbgrader.update(grade_id="01-half-check"),
            "not the solution before it",
        ),
        (lambda n: n.cells[4].metadata.pop("nbgrader"), "a solution without a check"),
        (lambda n: n.cells[2].update(source="Double it."), "no heading"),
        (lambda n: n.cells[3].update(source="def double(x):\n    return 2 * x"), "one region"),
        (lambda n: n.cells[6].update(source="### BEGIN SOLUTION\n1\n### END SOLUTION"), "no solution cell"),
        (lambda n: n.cells[5].update(source=OPEN.replace("<details>", "<p>")), "fold the model answer"),
        (lambda n: n.cells[5].update(source=OPEN.replace("<!-- ", "").replace(" -->", "")), "hide the marks"),
        (lambda n: n.cells[5].metadata.nbgrader.update(grade_id="02-why"), "must start with '01-'"),
        (lambda n: n.cells[6].update(source="%time print(double(4))"), "uses 'double'"),
        (lambda n: n.cells[3].update(source="y = 1\n" + SOLUTION), "functions or classes and nothing else"),
    ],
)
def test_what_is_not_in_order_is_named(change, words, tmp_path: Path, capsys):
    notebook = tiny()
    change(notebook)
    assert words in "\n".join(editions.exercise_problems(notebook, "01_tiny"))
    (tmp_path / "in").mkdir()
    nbformat.write(notebook, tmp_path / "in" / "01_tiny.ipynb")
    assert editions.main(["--source", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.notebooks
@pytest.mark.filterwarnings("ignore:Object of type")  # nbgrader's own use of its data base
def test_an_instructor_can_import_and_grade(tmp_path: Path, headless, monkeypatch):
    """nbgrader itself makes the assignment of the whole course, and marks a right and an empty answer."""
    tools = str(Path(sys.executable).parent)  # nbgrader calls `alembic` by its name
    monkeypatch.setenv("PATH", os.pathsep.join([tools, os.environ["PATH"]]))
    course = tmp_path / "course"
    (tmp_path / "exchange").mkdir(mode=0o777)
    config = Config()
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.db_url = f"sqlite:///{tmp_path}/gradebook.db"
    config.Exchange.root = str(tmp_path / "exchange")
    config.ClearSolutions.code_stub = {"python": editions.CODE_STUB}
    config.ClearSolutions.text_stub = editions.TEXT_STUB
    for assignment, notebooks in {
        "ppl": {path.stem: rules.read(path) for path in COURSE},
        "tiny": {"01_tiny": tiny()},
    }.items():
        folder = course / "source" / assignment
        folder.mkdir(parents=True)
        for stem, notebook in notebooks.items():
            nbformat.write(notebook, folder / f"{stem}.ipynb")
    api = NbGraderAPI(config=config)
    for assignment in ("ppl", "tiny"):
        made = api.generate_assignment(assignment)
        assert made["success"], made.get("error") or made["log"]
    for path in COURSE:
        released = rules.read(course / "release" / "ppl" / path.name)
        ours = editions.student(rules.read(path))
        assert [cell.source.replace("](../", "](../../") for cell in released.cells] == [
            cell.source for cell in ours.cells
        ]
    for student, cells in {"solved": tiny().cells, "empty": editions.student(tiny()).cells}.items():
        submission = rules.read(course / "release" / "tiny" / "01_tiny.ipynb")
        submission.cells[3].source = cells[3].source
        folder = course / "submitted" / student / "tiny"
        folder.mkdir(parents=True)
        nbformat.write(submission, folder / "01_tiny.ipynb")
        graded_now = api.autograde("tiny", student)
        assert graded_now["success"], graded_now.get("error") or graded_now["log"]
    scores = {
        entry["student"]: entry["code_score"] for entry in api.get_notebook_submissions("tiny", "01_tiny")
    }
    assert scores == {"solved": 2, "empty": 0}

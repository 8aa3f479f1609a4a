"""The course itself: stored form, no failing cell, stored outputs reproduced, fast parameters.

Strict nbval fails on everything that lax nbval fails on (negative controls show it), so each notebook is
executed once under nbval: the lax layer reads the cells that failed, the strict layer those that print
something else.
"""

import re
from pathlib import Path

import notebook_rules as rules
import pytest
import run_notebooks
import yaml
from nbval.plugin import get_sanitize_patterns
from nbval_run import SANITIZE, strict_run
from papermill.iorw import NoDatesSafeLoader

from pplkit.config import PPLConfig

COURSE = sorted(rules.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
SANITIZE_RULES = 6
LEAST_SHARE = 0.7

each_notebook = pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)


def test_the_course_is_there():
    """Without this an empty folder would leave every test below without a case, and green."""
    assert rules.course_notebooks() == COURSE


@each_notebook
def test_stored_form(path: Path):
    assert rules.contract_problems(path) == []


@pytest.mark.notebooks
@each_notebook
def test_no_cell_fails(path: Path, headless, record_property):
    run = strict_run(path)
    record_property("seconds", [path.stem, "strict", run.seconds])
    assert run.cells == len(rules.code_cells(rules.read(path)))
    assert not run.errors, "\n\n".join(map(str, run.errors))


@pytest.mark.notebooks
@each_notebook
def test_prints_what_is_stored(path: Path, headless):
    run = strict_run(path)
    assert not run.differences, "\n\n".join(map(str, run.differences))


@pytest.mark.notebooks
@each_notebook
def test_runs_with_fast_parameters(path: Path, headless, record_property, tmp_path: Path):
    table = rules.read_parameter_table(rules.FAST_PARAMETERS)
    result = run_notebooks.run_notebook(path, tmp_path / path.name, table)
    record_property("seconds", [path.stem, "fast", result.seconds])
    assert result.ok, "\n".join([*result.problems, result.details])


def test_fast_parameters_are_declared_by_the_notebooks():
    declared = {path.stem: rules.parameters(rules.read(path))[0] for path in COURSE}
    table = rules.read_parameter_table(rules.FAST_PARAMETERS)
    assert rules.parameter_table_problems(table, declared) == []


def test_papermill_reads_the_full_run_that_08_prints():
    """Of `-y "NAME: VALUE"`, as papermill takes it: 3e-05 would be text to it."""
    path, = rules.NOTEBOOKS.glob("08_*.ipynb")
    printed = "".join(output.text for _, cell in rules.code_cells(rules.read(path)) for output in cell.outputs
                      if output.output_type == "stream")
    command = printed[printed.index("papermill 08_training_on_gpu.ipynb"):]
    given = {}
    for assignment in re.findall(r'-y "(.+)"', command):
        given |= yaml.load(assignment, Loader=NoDatesSafeLoader)
    full = PPLConfig.reference("fashion-mnist")
    wanted = {name: getattr(full, name) for name in given.keys() - {"dataset", "device", "checkpoint"}}
    assert {name: given[name] for name in wanted} == wanted | {"code_lengths": list(full.code_lengths)} and len(wanted) == 7


def test_every_sanitize_rule_arrives():
    text = SANITIZE.read_text(encoding="utf-8")
    assert text.count("\nregex:") == text.count("\nreplace:") == SANITIZE_RULES
    assert len(get_sanitize_patterns(text)) == SANITIZE_RULES


@each_notebook
def test_most_outputs_are_compared(path: Path):
    """Of every notebook, not only of the whole course: a good one must not hide another."""
    found = rules.coverage(rules.read(path))
    assert found.share >= LEAST_SHARE, f"{found.compared} of {found.with_output} cells with output are compared"

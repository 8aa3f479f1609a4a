"""Negative controls: every fault that a checker exists for, planted on purpose, must turn that checker red.

Small notebooks are generated here. They import nothing heavy: a control costs a kernel's start and no more.
"""

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import notebook_rules as rules
import papermill
import pytest
import refresh_notebooks
import run_notebooks
from nbval_run import run_nbval

pytestmark = pytest.mark.notebooks

SECONDS = 60  # that a cell may take: these take none, and a kernel that hangs shall not cost ten minutes

PARAMETERS = ("n = 3\nname = 'three'", ["parameters"])
WIDGET_FAILS = """\
from ipywidgets import IntSlider, interact
def show(value):
    if value == 2:
        raise RuntimeError("callback broke")
    print(value)
slider = IntSlider(value=1, max=3)
interact(show, value=slider)
slider.value = 2"""


def write(path: Path, *cells: str | tuple[str, list[str]]) -> Path:
    """Write a notebook of code cells, each a source or (source, tags)."""
    notebook = nbformat.v4.new_notebook()
    for number, cell in enumerate(cells):
        source, tags = (cell, []) if isinstance(cell, str) else cell
        new = nbformat.v4.new_code_cell(source, id=f"cell-{number}")
        if tags:
            new.metadata["tags"] = tags
        notebook.cells.append(new)
    rules.clean(notebook)
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def sound(headless, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook without fault, as `make refresh` stores it."""
    cells = (
        PARAMETERS,
        "print(n * 2)",
        "from ipywidgets import IntSlider\nslider = IntSlider(value=n)\nslider",
    )
    path = write(tmp_path_factory.mktemp("sound") / "00_sound.ipynb", *cells)
    assert refresh_notebooks.refresh(path, SECONDS) == []
    return path


@pytest.fixture
def altered(sound: Path, tmp_path: Path) -> Callable[[Callable], Path]:
    """A copy of the sound notebook after `change(notebook)`."""

    def make(change: Callable[[nbformat.NotebookNode], None]) -> Path:
        notebook = rules.read(sound)
        change(notebook)
        path = tmp_path / sound.name
        nbformat.write(notebook, path)
        return path

    return make


def test_sound_notebook_passes_every_layer(sound: Path, tmp_path: Path):
    assert rules.contract_problems(sound) == []
    assert run_nbval(sound, timeout=SECONDS).failures == ()
    table = {"*": {"n": 5}, "00_sound": {"name": "five"}}
    executed = tmp_path / "executed.ipynb"
    assert run_notebooks.run_notebook(sound, executed, table, SECONDS).ok
    assert rules.read(executed).cells[2].outputs[0].text == "10\n"


def test_figures_are_the_same_whatever_backend_the_caller_has(headless, tmp_path: Path, monkeypatch):
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, n])\nplt.show()\nprint(n)"
    path = write(tmp_path / "00_figure.ipynb", PARAMETERS, draw)
    assert refresh_notebooks.refresh(path, SECONDS) == []
    monkeypatch.setenv("MPLBACKEND", "Agg")
    assert run_nbval(path, timeout=SECONDS).failures == ()


def test_refresh_stores_the_widget_as_text(sound: Path):
    stored = rules.read(sound).cells[2].outputs[0].data
    assert list(stored) == ["text/plain"] and stored["text/plain"].startswith("IntSlider(value=3")


class TestStrictNbval:
    def test_changed_number(self, altered):
        path = altered(lambda notebook: notebook.cells[1].outputs[0].update(text="7\n"))
        run = run_nbval(path, timeout=SECONDS)
        assert [failure.number for failure in run.differences] == [2] and not run.errors

    def test_stripped_output(self, altered):
        run = run_nbval(altered(lambda notebook: notebook.cells[1].update(outputs=[])), timeout=SECONDS)
        assert [failure.number for failure in run.differences] == [2]

    def test_strict_fails_wherever_lax_fails(self, altered):
        path = altered(lambda notebook: notebook.cells[1].update(source="print(n * 2)\nraise OSError(n)"))
        strict, lax = run_nbval(path, timeout=SECONDS), run_nbval(path, lax=True, timeout=SECONDS)
        assert (
            [failure.number for failure in strict.errors] == [failure.number for failure in lax.errors] == [2]
        )
        assert "OSError" in strict.errors[0].text

    def test_slow_cell(self, altered):
        path = altered(lambda notebook: notebook.cells[1].update(source="import time; time.sleep(60)"))
        run = run_nbval(path, timeout=1)
        assert run.errors[0].number == 2 and "Timeout" in run.errors[0].text


class TestContract:
    def test_never_executed_notebook_passes_strict_nbval_but_not_the_contract(self, altered):
        def forget(notebook):
            for cell in notebook.cells:
                cell.update(outputs=[], execution_count=None)

        path = altered(forget)
        assert run_nbval(path, timeout=SECONDS).failures == ()
        problems = rules.contract_problems(path)
        assert any("execution counts" in problem for problem in problems)
        assert any("no stored outputs" in problem for problem in problems)

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda nb: nb.cells[1].update(execution_count=7), "execution counts are [1, 7, 3]"),
            (lambda nb: nb.cells[0].metadata.update(tags=[]), "0 code cells are tagged 'parameters'"),
            (lambda nb: nb.cells[1].metadata.update(tags=["parameters"]), "2 code cells are tagged"),
            (lambda nb: nb.cells[0].update(source="n = 3 * 2"), "'n = 3 * 2' is not a literal"),
            (lambda nb: nb.cells[0].update(source="import math"), "'import math' is not `name = literal`"),
            (lambda nb: nb.metadata.update(widgets={}), "metadata.widgets"),
            (lambda nb: nb.metadata.update(papermill={}), "papermill metadata"),
            (lambda nb: nb.metadata.kernelspec.update(name="my-env"), "kernelspec"),
            (lambda nb: nb.cells[1].update(source='widgets.Predict("Which?")\nprint(n * 2)'), "'Which?' is not shown"),
            (lambda nb: nb.cells[1].outputs[0].update(text="/home/me/x.npz"), "absolute path '/home/me'"),
            (lambda nb: nb.cells[1].outputs[0].update(text=f"{rules.ROOT}/data"), "absolute path"),
            (lambda nb: nb.cells[1].outputs[0].update(name="stderr"), "stores stderr"),
            (lambda nb: nb.cells.append(nbformat.v4.new_markdown_cell("<details>a\n**b**")), "shows ** as typed"),
            (lambda nb: nb.cells[1].outputs[0].update(text=" 40%|##   | 2/5 [00:01<00:02]"), "progress bar"),
            (lambda nb: nb.cells[1].outputs[0].update(text="6" * 1_000_001), "at most 1,000,000"),
            (lambda nb: nb.cells[2].outputs[0].data.update({rules.WIDGET_VIEW: {}}), "widget view"),
        ],
    )
    def test_fault_is_named(self, altered, change, problem):
        found = rules.contract_problems(altered(change))
        assert any(problem in text for text in found), found

    def test_magics_are_no_fault(self, altered):
        path = altered(lambda notebook: notebook.cells[1].update(source="if not n:\n    %pip install pplkit\nprint(n * 2)"))
        assert rules.contract_problems(path) == []

    def test_swallowed_backslash(self, altered):
        path = altered(lambda notebook: notebook.cells[1].update(source="# the weight \x07lpha\nprint(n * 2)"))
        assert any("control character" in problem for problem in rules.contract_problems(path))

    def test_stored_error(self, altered):
        error = nbformat.v4.new_output("error", ename="OSError", evalue="gone", traceback=["gone"])
        found = rules.contract_problems(altered(lambda notebook: notebook.cells[1].update(outputs=[error])))
        assert "cell 2 raised OSError: gone" in found


class TestPapermill:
    def test_raising_widget_callback(self, headless, tmp_path: Path):
        path = write(tmp_path / "01_widget.ipynb", PARAMETERS, WIDGET_FAILS, "print(slider.value)")
        executed = tmp_path / "executed.ipynb"
        papermill.execute_notebook(str(path), str(executed), progress_bar=False, kernel_name="python3",
                                   execution_timeout=SECONDS)
        result = run_notebooks.run_notebook(path, executed, timeout=SECONDS)
        assert result.problems == ("a widget callback raised RuntimeError: callback broke",)

    def test_raising_button(self, headless, tmp_path: Path):
        press = "button = Button()\nbutton.on_click(lambda pressed: 1 / 0)\nbutton.click()"
        path = write(tmp_path / "01_button.ipynb", PARAMETERS, "from ipywidgets import Button\n" + press)
        result = run_notebooks.run_notebook(path, tmp_path / "x.ipynb", timeout=SECONDS)
        assert not result.ok and "ZeroDivisionError" in result.problems[0]

    def test_misspelt_parameter(self, sound: Path, tmp_path: Path):
        result = run_notebooks.run_notebook(sound, tmp_path / "x.ipynb", {"00_sound": {"N": 5}}, SECONDS)
        assert result.problems == (
            "parameter 'N' is not in the parameters cell of 00_sound, which declares n, name",
        )
        declared = {"00_sound": {"n": 3, "name": "three"}}
        assert rules.parameter_table_problems({"00_sound": {"N": 5}}, declared) == list(result.problems)
        assert rules.parameter_table_problems({"*": {"N": 5}}, declared) == ["'*': no notebook declares 'N'"]
        assert rules.parameter_table_problems({"00_sond": {}}, declared) == ["there is no notebook '00_sond'"]
        assert rules.parameter_table_problems({"*": {"n": 5}, "00_sound": {"name": ""}}, declared) == []

    def test_missing_parameters_tag(self, altered, tmp_path: Path):
        path = altered(lambda notebook: notebook.cells[0].metadata.update(tags=[]))
        result = run_notebooks.run_notebook(path, tmp_path / "x.ipynb", {"*": {"n": 5}}, SECONDS)
        assert result.problems == ("0 code cells are tagged 'parameters', exactly one must be",)

    def test_slow_cell(self, headless, tmp_path: Path):
        path = write(tmp_path / "01_slow.ipynb", PARAMETERS, "import time\ntime.sleep(60)")
        result = run_notebooks.run_notebook(path, tmp_path / "x.ipynb", timeout=1)
        assert (
            "cell 2 stopped with CellTimeoutError" in result.problems[0]
            and "time.sleep(60)" in result.details
        )

    def test_dead_kernel(self, headless, tmp_path: Path):
        path = write(tmp_path / "01_dead.ipynb", PARAMETERS, "import os\nos._exit(1)")
        result = run_notebooks.run_notebook(path, tmp_path / "x.ipynb", timeout=SECONDS)
        assert "cell 2 stopped with DeadKernelError" in result.problems[0]


class TestMakeRun:
    def test_failing_notebook_is_named_and_the_rest_still_run(self, headless, tmp_path: Path, capsys):
        source = tmp_path / "course"
        source.mkdir()
        write(source / "00_fails.ipynb", PARAMETERS, "value = {}\nvalue['missing']", "print('never')")
        write(source / "01_works.ipynb", PARAMETERS, "print(n)")
        output = tmp_path / "build"
        fast = tmp_path / "fast.json"
        fast.write_text(json.dumps({"01_works": {"n": 8}}))
        status = run_notebooks.main(
            ["--source", str(source), "--output", str(output), "--parameters", str(fast)]
        )
        shown = capsys.readouterr().out
        assert status == 1
        assert "cell 2 raised KeyError: 'missing'" in shown and "value['missing']" in shown
        assert "Traceback" in shown and "1 of 2 ok" in shown.splitlines()[-3]
        assert rules.read(output / "01_works.ipynb").cells[-1].outputs[0].text == "8\n"
        index = (output / "index.html").read_text()
        for stem in ("00_fails", "01_works"):
            assert f'href="{stem}.html"' in index and (output / f"{stem}.html").stat().st_size > 10_000

    def test_wrong_name_or_parameter_stops_before_work(self, sound: Path, tmp_path: Path, capsys):
        source = ["--source", str(sound.parent), "--output", str(tmp_path / "build")]
        assert run_notebooks.main([*source, "17"]) == 2
        assert "no notebook '17'" in capsys.readouterr().err
        fast = tmp_path / "fast.json"
        fast.write_text('{"*": {"epoch": 1}}')
        assert run_notebooks.main([*source, "--parameters", str(fast)]) == 2
        assert "no notebook declares 'epoch'" in capsys.readouterr().err
        assert not (tmp_path / "build").exists()


class TestMakeRefresh:
    @pytest.mark.parametrize(
        ("cell", "problem"),
        [
            ("import os\nprint(os.getcwd())", "absolute path"),
            ("import sys\nprint('careful', file=sys.stderr)", "stores stderr: 'careful'"),
            ("1 / 0", "ZeroDivisionError"),
            ("import os\nos._exit(1)", "DeadKernelError"),
            (WIDGET_FAILS, "a widget callback raised RuntimeError"),
            ("from tqdm.auto import tqdm\nsum(tqdm(range(9)))", "stores a progress bar"),
        ],
    )
    def test_fault_leaves_the_file_alone(self, headless, tmp_path: Path, cell: str, problem: str):
        path = write(tmp_path / "02_fault.ipynb", PARAMETERS, cell)
        before = path.read_bytes()
        found = refresh_notebooks.refresh(path, SECONDS)
        assert any(problem in text for text in found), found
        assert path.read_bytes() == before

    def test_twice_gives_the_same_file(self, sound: Path, tmp_path: Path):
        path = tmp_path / sound.name
        path.write_bytes(sound.read_bytes())
        assert refresh_notebooks.main(["--source", str(tmp_path), "00"]) == 0
        assert path.read_bytes() == sound.read_bytes()

    def test_stderr_goes_where_nothing_is_compared(self, headless, tmp_path: Path):
        noisy = "import sys\nprint('careful', file=sys.stderr)\nprint('kept')"
        path = write(tmp_path / "02_noise.ipynb", PARAMETERS, (noisy, ["nbval-ignore-output"]))
        assert refresh_notebooks.refresh(path, SECONDS) == []
        assert [output.text for output in rules.read(path).cells[1].outputs] == ["kept\n"]

    def test_progress_bars_are_silent(self, headless, tmp_path: Path):
        bar = "from pplkit.progress import progress_bar\nprint(sum(progress_bar(range(9))))"
        path = write(tmp_path / "02_bar.ipynb", PARAMETERS, bar)
        assert refresh_notebooks.refresh(path, SECONDS) == []
        assert [output.text for output in rules.read(path).cells[1].outputs] == ["36\n"]


def test_coverage_counts_what_is_really_compared(tmp_path: Path):
    path = write(
        tmp_path / "03_share.ipynb",
        PARAMETERS,
        "a",
        "b",
        "c",
        ("d", ["nbval-ignore-output"]),
        "# NBVAL_SKIP\ne",
    )
    notebook = rules.read(path)
    text = nbformat.v4.new_output("stream", text="1\n")
    figure = nbformat.v4.new_output(
        "display_data", {"image/png": "", "text/plain": "<Figure size 640x480 with 1 Axes>"}
    )
    for cell, outputs in zip(
        notebook.cells, ([], [text], [figure], [figure, text], [text], [text]), strict=True
    ):
        cell.outputs = outputs
    assert rules.coverage(notebook) == rules.Coverage(cells=6, with_output=5, compared=2)
    assert rules.coverage(notebook).share == 0.4

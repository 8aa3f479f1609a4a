"""What every notebook of the course must satisfy, as plain functions.

Used by run_notebooks.py, refresh_notebooks.py and tests/notebooks. Every check returns a list of problems in
words, empty when all is well, so that a caller can show all of them at once.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
FAST_PARAMETERS = ROOT / "tests" / "notebooks" / "fast.json"
MAX_BYTES = 1_000_000

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# Without version numbers, so that refreshing under another Python leaves the file alone.
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip"}
_IGNORE_COMMENT = re.compile(
    r"^\s*#\s*(PYTEST_VALIDATE_IGNORE_OUTPUT|NBVAL_IGNORE_OUTPUT|NBVAL_SKIP)\s*$", re.MULTILINE
)
_ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/])(?:/(?:home|Users|root|tmp|var/folders|mnt|workspace)/[\w.~-]+|[A-Za-z]:\\Users\\)"
)
_PROGRESS_BAR = re.compile(r"\d%\|.*\|")
_FIGURE_REPR = re.compile(r"<Figure size [^>]*>")


def course_notebooks(folder: Path = NOTEBOOKS, names: list[str] | None = None) -> list[Path]:
    """The numbered notebooks of `folder` in order, or those that `names` mean ("09", "09_four_scenarios").

    Raises:
        FileNotFoundError: a name fits no notebook, or the folder holds none.
    """
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise FileNotFoundError(f"no numbered notebook (NN_name.ipynb) in {folder}")
    if not names:
        return notebooks
    chosen = []
    for name in names:
        wanted = Path(name).name.removesuffix(".ipynb")
        fits = [path for path in notebooks if path.stem == wanted or path.stem.startswith(wanted + "_")]
        if not fits:
            raise FileNotFoundError(
                f"no notebook {name!r} in {folder}; there are {', '.join(p.stem for p in notebooks)}"
            )
        chosen += fits
    return sorted(set(chosen))


def read(path: Path) -> NotebookNode:
    """Read a notebook file (nbformat 4)."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """(number, cell) of the code cells, counted from 1: the number shown as In [n] after a clean run."""
    return list(enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1))


def tags(cell: NotebookNode) -> set[str]:
    """The cell's tags."""
    return set(cell.metadata.get("tags", []))


def is_compared(cell: NotebookNode) -> bool:
    """Whether strict nbval compares this cell's outputs (by its tags and marker comments)."""
    return not (tags(cell) & NOT_COMPARED or _IGNORE_COMMENT.search(cell.source))


def parameters(notebook: NotebookNode) -> tuple[dict[str, object], list[str]]:
    """Names and defaults from the one cell tagged `parameters`, and what is wrong with that cell."""
    tagged = [cell for _, cell in code_cells(notebook) if "parameters" in tags(cell)]
    if len(tagged) != 1:
        return {}, [f"{len(tagged)} code cells are tagged 'parameters', exactly one must be"]
    names: dict[str, object] = {}
    problems = []
    try:
        statements = ast.parse(tagged[0].source).body
    except SyntaxError as error:
        return {}, [f"the parameters cell does not parse: {error}"]
    for statement in statements:
        targets = (
            statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        )
        simple = isinstance(statement, (ast.Assign, ast.AnnAssign)) and len(targets) == 1
        if not (simple and isinstance(targets[0], ast.Name)):
            problems.append(f"parameters cell: {ast.unparse(statement)!r} is not `name = literal`")
            continue
        try:
            names[targets[0].id] = ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            problems.append(f"parameters cell: {ast.unparse(statement)!r} is not a literal")
    return names, problems


def select_parameters(
    table: dict[str, dict], stem: str, declared: dict[str, object]
) -> tuple[dict[str, object], list[str]]:
    """The parameters that the shared file gives to notebook `stem`, and what is wrong with them.

    table: {"*": {...}, "08_training_on_gpu": {...}}. Entries under "*" go to every notebook that declares the
    name; entries under a notebook's own name must be declared there.
    """
    own = table.get(stem, {})
    problems = [
        f"parameter {name!r} is not in the parameters cell of {stem}, which declares "
        f"{', '.join(sorted(declared)) or 'none'}"
        for name in own
        if name not in declared
    ]
    common = {name: value for name, value in table.get("*", {}).items() if name in declared}
    return {**common, **own}, problems


def parameter_table_problems(table: dict[str, dict], declared: dict[str, dict[str, object]]) -> list[str]:
    """What is wrong with a shared parameter file; `declared` maps each notebook to its parameters."""
    problems = []
    for stem, own in table.items():
        if stem == "*":
            everywhere = {name for names in declared.values() for name in names}
            problems += [f"'*': no notebook declares {name!r}" for name in own if name not in everywhere]
        elif stem not in declared:
            problems.append(f"there is no notebook {stem!r}")
        else:
            problems += select_parameters({stem: own}, stem, declared[stem])[1]
    return problems


def read_parameter_table(path: Path) -> dict[str, dict]:
    """Read a shared parameter file: JSON, {"*": {name: value}, "notebook": {name: value}}."""
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
        raise ValueError(f"{path}: expected {{notebook or '*': {{name: value}}}}")
    return table


def output_texts(cell: NotebookNode) -> list[str]:
    """Every text in the cell's stored outputs (streams, text/plain, text/html, ...), pictures left out."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type == "error":
            texts.append("\n".join(output.traceback))
        else:
            texts += [
                value
                for key, value in output.data.items()
                if isinstance(value, str) and not key.startswith("image/")
            ]
    return texts


def error_problems(notebook: NotebookNode) -> list[str]:
    """Errors that a run left behind: in a cell's outputs, in an Output widget, or as a traceback on stderr.

    An exception in a widget callback stops no cell: it ends up in the state of an Output widget, and
    papermill still exits 0.
    """
    problems = []
    for number, cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                problems.append(f"cell {number} raised {output.ename}: {output.evalue}")
            elif output.output_type == "stream" and "Traceback (most recent call last)" in output.text:
                problems.append(f"cell {number} printed a traceback: {output.text.strip().splitlines()[-1]}")
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for model in state.values():
        for output in (
            model.get("state", {}).get("outputs", []) if model.get("model_name") == "OutputModel" else []
        ):
            if output.get("output_type") == "error":
                problems.append(f"a widget callback raised {output.get('ename')}: {output.get('evalue')}")
    return problems


def contract_problems(path: Path) -> list[str]:
    """What keeps a committed notebook from being complete, clean and comparable.

    A notebook that was never executed passes strict nbval, so completeness is checked here.
    """
    notebook = read(path)
    problems = []
    size = path.stat().st_size
    if size > MAX_BYTES:
        problems.append(f"{size:,} bytes, at most {MAX_BYTES:,} allowed")
    numbered = code_cells(notebook)
    counts = [cell.execution_count for _, cell in numbered]
    if counts != [number for number, _ in numbered]:
        problems.append(
            f"execution counts are {counts}, not 1 to {len(counts)}: run `make refresh NB={path.stem}`"
        )
    if not any(cell.outputs for _, cell in numbered):
        problems.append(f"no stored outputs: run `make refresh NB={path.stem}`")
    problems += parameters(notebook)[1]
    problems += error_problems(notebook)
    if "widgets" in notebook.metadata:
        problems.append("metadata.widgets is stored: GitHub does not show such a file")
    if "papermill" in notebook.metadata or any("papermill" in cell.metadata for cell in notebook.cells):
        problems.append("papermill metadata is stored")
    if any("injected-parameters" in tags(cell) for cell in notebook.cells):
        problems.append("a cell injected by papermill is stored")
    if dict(notebook.metadata.get("kernelspec", {})) != KERNELSPEC:
        problems.append(f"kernelspec is {dict(notebook.metadata.get('kernelspec', {}))}, not {KERNELSPEC}")
    for number, cell in numbered:
        problems += [f"cell {number} {problem}" for problem in cell_output_problems(cell) + prediction_problems(cell)]
    for cell in notebook.cells:
        if lost := re.search(r"[\x00-\x08\x0b-\x1f]\w*", cell.source):
            problems.append(f"cell {cell.id} has a control character in {lost[0]!r}: a backslash escape was swallowed")
        if cell.cell_type == "markdown":
            problems += [f"cell {cell.id} {problem}" for problem in raw_markdown_problems(cell.source)]
    return problems


def raw_markdown_problems(source: str) -> list[str]:
    """Markdown that is shown as it is typed: an HTML block such as <details> lasts until the next empty line."""
    problems, inside = [], False
    for line in source.splitlines():
        inside = bool(line.strip()) and (inside or line.lstrip().startswith("<details"))
        if inside and (mark := re.search(r"`|\*\*", line)):
            problems.append(f"shows {mark[0]} as typed in {line[:60]!r}: end the HTML block with an empty line, or use tags")
    return problems


def prediction_problems(cell: NotebookNode) -> list[str]:
    """A stored question of `pplkit.widgets.Predict` that is not the one asked: its output is never compared with a run."""
    shown = "\n".join(output_texts(cell))
    for call in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):  # magics become function calls
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "Predict":
            asked = [part.value for part in ast.walk(call) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if lost := [text for text in asked if text.strip() not in shown]:
                return [f"stores another prediction than it asks for: {lost[0]!r} is not shown; run `make refresh`"]
    return []


def cell_output_problems(cell: NotebookNode) -> list[str]:
    """What must not be stored in outputs: paths of this machine, stderr, a widget that needs a kernel."""
    problems = []
    for text in output_texts(cell):
        for place in {str(ROOT), str(Path.home())} | set(_ABSOLUTE_PATH.findall(text)):
            if len(place) > 1 and place in text:
                problems.append(f"shows the absolute path {place!r}")
        if _PROGRESS_BAR.search(text):
            problems.append("stores a progress bar; pplkit.progress.progress_bar is silent in headless runs")
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            problems.append(f"stores stderr: {output.text.strip()[:200]!r}")
        if WIDGET_VIEW in output.get("data", {}):
            problems.append("stores a widget view, which shows nothing without a kernel")
    return problems


def clean(notebook: NotebookNode) -> None:
    """Bring an executed notebook into the form that is committed, in place.

    Widget views lose their live form and keep their text; stderr goes where outputs are not compared anyway
    (elsewhere it stays, for contract_problems to report); metadata holds nothing of this machine.
    """
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO})
    for cell in notebook.cells:
        kept = {"tags", "jupyter", "nbgrader", "deletable", "editable"}
        cell.metadata = nbformat.from_dict(
            {key: value for key, value in cell.metadata.items() if key in kept}
        )
        if cell.cell_type != "code":
            continue
        outputs = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr" and not is_compared(cell):
                continue
            if output.output_type in ("display_data", "execute_result"):
                output.data.pop(WIDGET_VIEW, None)
                if not output.data:
                    continue
            outputs.append(output)
        cell.outputs = outputs


@dataclass(frozen=True)
class Coverage:
    """How much of a notebook strict nbval compares. Counts of code cells."""

    cells: int  # code cells
    with_output: int  # of these, with stored outputs
    compared: (
        int  # of those with outputs, compared and with text that can differ (a lone picture is not compared)
    )

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(
            self.cells + other.cells, self.with_output + other.with_output, self.compared + other.compared
        )

    @property
    def share(self) -> float:
        """compared / with_output, 0 where nothing has outputs."""
        return self.compared / self.with_output if self.with_output else 0.0


def coverage(notebook: NotebookNode) -> Coverage:
    """Count the cells whose stored outputs strict nbval really compares."""
    cells = [cell for _, cell in code_cells(notebook)]
    with_output = [cell for cell in cells if cell.outputs]
    compared = [
        cell
        for cell in with_output
        if is_compared(cell) and any(_FIGURE_REPR.sub("", text).strip() for text in output_texts(cell))
    ]
    return Coverage(len(cells), len(with_output), len(compared))


def notebook_environment(scratch: Path) -> dict[str, str]:
    """Environment variables under which every headless run happens, on top of the caller's.

    The kernel is this interpreter's, not another `python3` kernel of the user; the user's IPython start-up
    files stay out; progress bars are silent, because their text differs each time.

    Args:
        scratch: existing folder that receives IPython's settings and lives as long as the run.
    """
    profile = scratch / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    # The kernel warns on each start that its loopback connection is not encrypted.
    (profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n")
    own_kernels = Path(sys.prefix) / "share" / "jupyter"
    paths = [str(own_kernels)] + [path for path in [os.environ.get("JUPYTER_PATH")] if path]
    return {
        "JUPYTER_PATH": os.pathsep.join(paths),
        "IPYTHONDIR": str(profile.parent),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # whatever the caller's own is
        "TQDM_DISABLE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


@contextlib.contextmanager
def headless() -> Iterator[None]:
    """Run notebooks inside this: sets `notebook_environment`, and does once what a fresh machine would print.

    Importing matplotlib's font manager builds its cache, which otherwise announces itself in a notebook.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="pplkit-ipython-") as scratch:
        os.environ.update(notebook_environment(Path(scratch)))
        try:
            importlib.import_module("matplotlib.font_manager")
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

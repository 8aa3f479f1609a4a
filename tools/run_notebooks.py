"""Execute the numbered notebooks headlessly and write them, their HTML and an index page (`make run`).

A notebook that fails is named with its failing cell and traceback; the others still run; the exit status is
then 1. papermill alone exits 0 when a widget callback raised, when a parameter is misspelt and when the
parameters cell is missing: all three are failures here.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import notebook_rules as rules
import papermill
from nbconvert import HTMLExporter

BUILD = rules.ROOT / "build" / "notebooks"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Result:
    """How one notebook's run went."""

    stem: str
    seconds: float
    problems: tuple[str, ...]  # empty when all is well
    details: str = ""  # failing cell and traceback

    @property
    def ok(self) -> bool:
        """Whether the notebook ran without a problem."""
        return not self.problems


def run_notebook(
    path: Path, output: Path, table: dict[str, dict] | None = None, timeout: float = 600
) -> Result:
    """Execute one notebook from an empty working directory and write the executed copy to `output`.

    Args:
        path: the notebook.
        output: where the executed notebook goes.
        table: shared parameters, {"*" or notebook: {name: value}}, checked against the parameters cell.
        timeout: seconds that one cell may take.
    """
    started = time.perf_counter()
    declared, problems = rules.parameters(rules.read(path))
    chosen, misspelt = rules.select_parameters(table or {}, path.stem, declared)
    problems += misspelt
    if problems:
        return Result(path.stem, time.perf_counter() - started, tuple(problems))
    output.parent.mkdir(parents=True, exist_ok=True)
    details = ""
    with tempfile.TemporaryDirectory(prefix="pplkit-run-") as scratch:
        # papermill passes a path relative to the caller's directory on, hence absolute ones.
        arguments = dict(
            input_path=str(path.resolve()),
            output_path=str(output.resolve()),
            parameters=chosen,
            cwd=scratch,
            kernel_name="python3",
            progress_bar=False,
            execution_timeout=timeout,
            start_timeout=120,
        )
        try:
            papermill.execute_notebook(**arguments)
        except papermill.PapermillExecutionError as error:
            problems.append(f"cell {error.exec_count} raised {error.ename}: {error.evalue}")
            details = f"{error.source}\n\n" + "\n".join(error.traceback)
        except (
            Exception
        ) as error:  # timeouts and dead kernels come from nbclient and jupyter_client in many classes
            place, source = _last_started_cell(output)
            summary = str(error).strip().splitlines() or [""]
            problems.append(f"{place} stopped with {type(error).__name__}: {summary[0]}")
            details = source or "".join(traceback.format_exception(error))
    if output.is_file():
        problems += [
            problem for problem in rules.error_problems(rules.read(output)) if problem not in problems
        ]
    return Result(
        path.stem, time.perf_counter() - started, tuple(dict.fromkeys(problems)), _COLOURS.sub("", details)
    )


def _last_started_cell(executed: Path) -> tuple[str, str]:
    """Name and source of the cell at which a run stopped (papermill calls a timed-out cell completed)."""
    started = []
    if executed.is_file():
        cells = rules.code_cells(rules.read(executed))
        started = [
            entry for entry in cells if entry[1].metadata.get("papermill", {}).get("status") != "pending"
        ]
    return (f"cell {started[-1][0]}", started[-1][1].source) if started else ("the kernel", "")


def write_html(executed: Path) -> Path:
    """Write an executed notebook's HTML beside it."""
    page, _ = HTMLExporter().from_filename(str(executed))
    target = executed.with_suffix(".html")
    target.write_text(page, encoding="utf-8")
    return target


def write_index(folder: Path, results: list[Result]) -> Path:
    """Write the page that links all executed notebooks, with seconds and result."""
    rows = []
    for result in results:
        page = folder / f"{result.stem}.html"
        name = html.escape(result.stem)
        title = f'<a href="{name}.html">{name}</a>' if page.is_file() else name
        state = "ok" if result.ok else "failed: " + html.escape("; ".join(result.problems))
        rows.append(f"<tr><td>{title}</td><td>{result.seconds:.1f}</td><td>{state}</td></tr>")
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>pplkit: executed notebooks</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "td,th{padding:.2em 1em .2em 0;text-align:left;vertical-align:top}</style>"
        "<h1>Executed notebooks</h1><table><tr><th>Notebook</th><th>Seconds</th><th>Result</th></tr>"
        + "".join(rows)
        + "</table></html>\n"
    )
    target = folder / "index.html"
    target.write_text(page, encoding="utf-8")
    return target


def table_text(results: list[Result]) -> str:
    """The closing table: notebook, seconds, result."""
    width = max([len(result.stem) for result in results] + [len("notebook")])
    lines = [f"{'notebook':<{width}}  seconds  result"]
    for result in results:
        lines.append(
            f"{result.stem:<{width}}  {result.seconds:7.1f}  "
            f"{'ok' if result.ok else 'FAILED: ' + result.problems[0]}"
        )
    lines.append(
        f"{'all':<{width}}  {sum(result.seconds for result in results):7.1f}  "
        f"{sum(result.ok for result in results)} of {len(results)} ok"
    )
    return "\n".join(lines)


def run_all(
    notebooks: list[Path], folder: Path, table: dict[str, dict] | None, timeout: float
) -> list[Result]:
    """Run the notebooks one after the other with a progress line each; write notebooks and HTML."""
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for number, path in enumerate(notebooks, start=1):
        print(f"[{number:>2}/{len(notebooks)}] {path.stem} ...", end=" ", flush=True)
        output = folder / path.name
        for stale in (output, output.with_suffix(".html")):
            stale.unlink(missing_ok=True)
        result = run_notebook(path, output, table, timeout)
        if output.is_file():
            write_html(output)
        results.append(result)
        print(f"{'ok' if result.ok else 'FAILED'}, {result.seconds:.1f} s", flush=True)
        for problem in result.problems:
            print(f"    {problem}")
        if result.details:
            print("    " + result.details.replace("\n", "\n    "), flush=True)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0 when every notebook ran, 1 when one failed, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="notebooks, e.g. 09 or 09_four_scenarios; all when none is named"
    )
    parser.add_argument("--source", type=Path, default=rules.NOTEBOOKS, help="folder of the notebooks")
    parser.add_argument(
        "--output", type=Path, default=BUILD, help="folder for executed notebooks, HTML and index.html"
    )
    parser.add_argument("--parameters", type=Path, help="JSON file with parameters per notebook ('*': all)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that one cell may take")
    options = parser.parse_args(arguments)
    try:
        notebooks = rules.course_notebooks(options.source, options.names)
        table = None
        if options.parameters:
            table = rules.read_parameter_table(options.parameters)
            declared = {
                path.stem: rules.parameters(rules.read(path))[0]
                for path in rules.course_notebooks(options.source)
            }
            problems = rules.parameter_table_problems(table, declared)
            if problems:
                raise ValueError(f"{options.parameters}: " + "; ".join(problems))
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with rules.headless():
        results = run_all(notebooks, options.output, table, options.timeout)
    index = write_index(options.output, results)
    print(f"\n{table_text(results)}\n\nOpen {index}")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Re-execute the committed notebooks in place and store clean outputs (`make refresh`, `make refresh NB=09`).

A notebook is only rewritten when its fresh run satisfies the whole contract of notebook_rules; otherwise the
file is left as it was and the problems are listed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import course_guide
import nbformat
import notebook_rules as rules
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError


def refresh(path: Path, timeout: float = 600) -> list[str]:
    """Execute one notebook with its default parameters and rewrite it; the problems, empty if rewritten."""
    notebook = rules.read(path)
    for _, cell in rules.code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory(prefix="pplkit-refresh-") as scratch:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            startup_timeout=120,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": scratch}},
        )
        try:
            client.execute()
        except CellExecutionError as error:
            return [f"a cell failed:\n{error}"]
        except (CellTimeoutError, DeadKernelError) as error:
            return [f"{type(error).__name__}: {error}"]
        problems = rules.error_problems(notebook)
        rules.clean(notebook)
        candidate = Path(scratch) / path.name
        nbformat.write(notebook, candidate)
        problems += [problem for problem in rules.contract_problems(candidate) if problem not in problems]
        if problems:
            return problems + largest_outputs(notebook, candidate)
        beside = path.with_suffix(".ipynb.new")
        shutil.copyfile(candidate, beside)
        os.replace(beside, path)
    return []


def largest_outputs(notebook: nbformat.NotebookNode, written: Path) -> list[str]:
    """Where the bytes are, if the file is too large."""
    if written.stat().st_size <= rules.MAX_BYTES:
        return []
    sizes = sorted(
        ((len(str(cell.outputs)), number) for number, cell in rules.code_cells(notebook)), reverse=True
    )
    return ["largest outputs: " + ", ".join(f"cell {number} {size:,} bytes" for size, number in sizes[:3])]


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0, or 1 when a notebook or the course map was left as it was, 2 for wrong names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="notebooks, e.g. 09 or 09_four_scenarios; all when none is named"
    )
    parser.add_argument("--source", type=Path, default=rules.NOTEBOOKS, help="folder of the notebooks")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that one cell may take")
    options = parser.parse_args(arguments)
    try:
        notebooks = rules.course_notebooks(options.source, options.names)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = 0
    if options.source == rules.NOTEBOOKS:
        try:
            course_guide.update()
        except (FileNotFoundError, ValueError) as error:
            failed = 1
            print(f"the course map and badges stay as they were: {error}", flush=True)
    with rules.headless():
        for number, path in enumerate(notebooks, start=1):
            print(f"[{number:>2}/{len(notebooks)}] {path.stem} ...", end=" ", flush=True)
            started = time.perf_counter()
            problems = refresh(path, options.timeout)
            failed += bool(problems)
            print(
                f"{'left as it was' if problems else 'refreshed'}, {time.perf_counter() - started:.1f} s",
                flush=True,
            )
            for problem in problems:
                print(f"    {problem}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

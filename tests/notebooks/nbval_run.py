"""Run nbval on one notebook in a process of its own and say which cells failed, and how."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import notebook_rules as rules

SANITIZE = Path(__file__).parent / "sanitize.cfg"


@dataclass(frozen=True)
class CellFailure:
    """One cell that nbval found fault with."""

    number: int  # as shown in In [n]
    differs: bool  # it ran, but its outputs are not the stored ones; otherwise it raised or timed out
    text: str

    def __str__(self) -> str:
        return f"cell {self.number} {'prints something else' if self.differs else 'failed'}:\n{self.text}"


@dataclass(frozen=True)
class NbvalRun:
    """What nbval found in one notebook."""

    cells: int
    seconds: float
    failures: tuple[CellFailure, ...]

    @property
    def errors(self) -> list[CellFailure]:
        """Cells that raised or timed out: exactly what `--nbval-lax` fails on."""
        return [failure for failure in self.failures if not failure.differs]

    @property
    def differences(self) -> list[CellFailure]:
        """Cells that ran but whose outputs are not the stored ones."""
        return [failure for failure in self.failures if failure.differs]


def run_nbval(path: Path, *, lax: bool = False, timeout: float = 600) -> NbvalRun:
    """Execute the notebook from an empty directory and compare it with its stored outputs.

    Args:
        path: the notebook; it is copied, so that nothing can be written beside the original.
        lax: only look for cells that fail, compare no outputs.
        timeout: seconds that one cell may take.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pplkit-nbval-") as name:
        scratch = Path(name)
        work = scratch / "work"
        work.mkdir()
        copy = Path(shutil.copy(path, work))
        (scratch / "pytest.ini").write_text("[pytest]\n")
        report = scratch / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-c", str(scratch / "pytest.ini"), "--rootdir", str(work)),
            *("-p", "no:cacheprovider", "--color=no", "-q", f"--junitxml={report}"),
            *("--nbval-lax" if lax else "--nbval", "--nbval-current-env"),
            *("--nbval-sanitize-with", str(SANITIZE), "--nbval-cell-timeout", str(timeout), str(copy)),
        ]
        environment = {**os.environ, **rules.notebook_environment(scratch)}
        done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True)
        if done.returncode not in (0, 1) or not report.is_file():
            raise RuntimeError(f"nbval stopped with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    failures = []
    for case in cases:
        for fault in [*case.findall("failure"), *case.findall("error")]:
            text = fault.text or fault.get("message", "")
            differs = "Cell outputs differ" in text or "Unrun reference cell has outputs" in text
            failures.append(CellFailure(int(case.get("name").removeprefix("Cell ")) + 1, differs, text))
    if done.returncode == 1 and not failures:
        raise RuntimeError(f"nbval failed without naming a cell:\n{done.stdout}")
    return NbvalRun(len(cases), time.perf_counter() - started, tuple(failures))


@functools.cache
def strict_run(path: Path) -> NbvalRun:
    """One strict run, shared by the tests that look at its two halves."""
    return run_nbval(path)

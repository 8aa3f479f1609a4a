"""Shared by the notebook tests: headless environment, and the closing table of seconds and compared cells."""

import itertools
from collections import defaultdict

import notebook_rules as rules
import pytest


@pytest.fixture(scope="session")
def headless():
    """The environment in which `make run` and `make refresh` execute notebooks."""
    with rules.headless():
        yield


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Per notebook: seconds of both executions, share of its cells whose outputs are really compared."""
    measured = defaultdict(dict)  # ["09_..."]["strict"] -> 31.2; from whichever process ran the test
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        for name, value in getattr(report, "user_properties", []):
            if name == "seconds":
                stem, layer, seconds = value
                measured[stem][layer] = seconds
    if not measured:
        return
    write = terminalreporter.write_line
    terminalreporter.section("notebooks")
    write(f"{'notebook':<32} strict s  fast s  code cells  with output  compared  share")
    total = rules.Coverage(0, 0, 0)
    for stem, layers in sorted(measured.items()):
        part = rules.coverage(rules.read(rules.NOTEBOOKS / f"{stem}.ipynb"))
        total = total + part
        write(_line(stem, layers.get("strict"), layers.get("fast"), part))
    sums = [sum(layers.get(layer, 0.0) for layers in measured.values()) for layer in ("strict", "fast")]
    write(_line("all", *sums, total))


def _line(name: str, strict: float | None, fast: float | None, part: rules.Coverage) -> str:
    times = ["       -" if value is None else f"{value:8.1f}" for value in (strict, fast)]
    return (
        f"{name:<32} {times[0]}{times[1]}  {part.cells:10}  {part.with_output:11}  {part.compared:8}"
        f"  {part.share:5.0%}"
    )

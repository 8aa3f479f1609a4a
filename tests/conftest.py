"""Settings of every test run: no windows, repeatable property tests, slow things last or on request, several processes."""

import itertools
import os
import re
from collections import defaultdict

import notebook_rules as rules
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("MPLBACKEND", "Agg")
# Results to the last bit, and notebooks' stored outputs, are a CPU's: a GPU is hidden but for `make test-gpu`.
if not os.environ.setdefault("PPLKIT_TEST_DEVICE", "cpu").startswith("cuda"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# No deadline: on a busy machine time proves nothing. Derandomised: the same examples everywhere.
settings.register_profile("pplkit", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("pplkit")

MOST_PROCESSES = 8  # each loads torch
NOTEBOOK = re.compile(r"test_course\.py::.*\[(\d\d_\w+)]$")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Benchmarks only run when asked for by marker; the notebooks, which take minutes, come last."""
    if "benchmark" not in config.option.markexpr:
        asked_for = [item for item in items if "benchmark" not in item.keywords]
        config.hook.pytest_deselected(items=[item for item in items if "benchmark" in item.keywords])
        items[:] = asked_for
    items.sort(key=lambda item: "notebooks" in item.keywords)


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: as many processes as this one may use cores, up to `MOST_PROCESSES`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST_PROCESSES)


def together(nodeid: str) -> str:
    """Tests with the same name here run in one process: those in the browser, those of a notebook, which share a run, and those
    of several processes, which share the processes.
    """
    if notebook := NOTEBOOK.search(nodeid):
        return notebook[1]
    shared = ("tests/browser/", "tests/test_processes.py")
    return next((start for start in shared if nodeid.startswith(start)), nodeid)


class Scheduling(LoadScopeScheduling):
    """Deals out tests one by one, but for those that stay `together`."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    """The scheduler of `-n`."""
    return Scheduling(config, log)


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

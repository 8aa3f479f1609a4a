"""Settings of every test run: no windows, repeatable property tests, slow things last or on request."""

import os

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

# No deadline: on a busy machine time proves nothing. Derandomised: the same examples everywhere.
settings.register_profile("pplkit", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("pplkit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Benchmarks only run when asked for by marker; the notebooks, which take minutes, come last.

    Where pytest-xdist deals the tests out to processes, those of one notebook stay together, and so do those in the browser:
    they share what is made once.
    """
    if "benchmark" not in config.option.markexpr:
        asked_for = [item for item in items if "benchmark" not in item.keywords]
        config.hook.pytest_deselected(items=[item for item in items if "benchmark" in item.keywords])
        items[:] = asked_for
    items.sort(key=lambda item: "notebooks" in item.keywords)
    for item in items:
        path = getattr(item, "callspec", None) and item.callspec.params.get("path")
        if item.path.parent.name == "browser":
            item.add_marker(pytest.mark.xdist_group("browser"))
        elif "notebooks" in item.keywords and path:
            item.add_marker(pytest.mark.xdist_group(path.stem))

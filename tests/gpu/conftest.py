"""Where the tests of a GPU run: on the one of `make test-gpu`, or on a device that is not the CPU, made of memory."""

import os
from collections.abc import Iterator

import pytest

DEVICE = os.environ["PPLKIT_TEST_DEVICE"]
if DEVICE == "cpu":
    collect_ignore_glob = ["test_*.py"]  # tests/test_elsewhere.py runs them
if DEVICE == "elsewhere":
    import elsewhere

    KEPT = elsewhere.register()


@pytest.fixture(autouse=True)
def present() -> Iterator[None]:
    if DEVICE != "elsewhere":
        yield
        return
    with elsewhere.present():
        yield

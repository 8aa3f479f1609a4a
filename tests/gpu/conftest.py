"""Where the tests of a GPU run: on the one of `make test-gpu`, or on a device that is not the CPU, made of memory."""

import os
from collections.abc import Iterator

import elsewhere
import pytest

if os.environ["PPLKIT_TEST_DEVICE"] == "cpu":
    collect_ignore_glob = ["test_*.py"]  # tests/test_elsewhere.py runs them
if os.environ["PPLKIT_TEST_DEVICE"] == elsewhere.NAME:
    KEPT = elsewhere.register()


@pytest.fixture(autouse=True)
def present() -> Iterator[None]:
    if os.environ["PPLKIT_TEST_DEVICE"] != elsewhere.NAME:
        yield
        return
    with elsewhere.present():
        yield

"""Shared by the notebook tests: the headless environment."""

import notebook_rules as rules
import pytest


@pytest.fixture(scope="session")
def headless():
    """The environment in which `make run` and `make refresh` execute notebooks."""
    with rules.headless():
        yield

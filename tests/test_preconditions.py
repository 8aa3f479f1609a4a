"""Whole numbers and numbers: what is accepted, and that the error quotes the value."""

import math

import numpy as np
import pytest

from pplkit.preconditions import check_whole, is_finite, is_number, is_whole

WHOLE, NUMBERS = (0, 1, -3, 10**400), (0.0, 0.5, 1e-300, -2.5)
NEITHER = (True, False, None, "1", [1], np.array(1), math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("value", WHOLE)
def test_ints_are_whole_numbers_and_numbers(value):
    assert is_whole(value, least=value)
    assert not is_whole(value, least=value + 1)
    assert is_finite(value)
    assert is_number(value) == (value >= 0)


@pytest.mark.parametrize("value", NUMBERS)
def test_floats_are_numbers_only(value):
    assert not is_whole(value, least=-10)
    assert is_finite(value)
    assert is_number(value) == (value >= 0)


@pytest.mark.parametrize("value", NEITHER)
def test_what_is_neither(value):
    assert not is_whole(value, least=0)
    assert not is_finite(value)
    assert not is_number(value)


def test_the_error_says_what_was_given():
    check_whole(3, "workers", least=3)
    with pytest.raises(ValueError, match=r"^workers must be a whole number of at least 4, got 3$"):
        check_whole(3, "workers", least=4)
    with pytest.raises(ValueError, match=r"^bits must be a whole number of at least 1, got True$"):
        check_whole(True, "bits")

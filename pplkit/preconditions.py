"""Checks that many arguments share: whole numbers and numbers of at least something. `True` is neither."""

import math


def is_whole(value: object, least: int = 0) -> bool:
    """Whether `value` is an int ≥ `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_finite(value: object) -> bool:
    """Whether `value` is an int or a float, neither infinite nor NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float, finite and ≥ 0."""
    return is_finite(value) and value >= 0


def check_whole(value: object, name: str, least: int = 1) -> None:
    """ValueError that quotes `value` unless it is an int ≥ `least`; `name` is what the error calls it."""
    if not is_whole(value, least):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")

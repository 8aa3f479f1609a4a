"""Answer checks for the exercises: they say what is wrong, not only that something is.

A check lives in the module of its notebook (`pplkit/checks/<topic>.py`) and takes the learner's function:

    @check
    def hamming(function: Callable) -> str:
        cases = [dict(a=..., b=...), ...]                     # seeded
        compare(
            function,
            retrieval.hamming_distance,                       # the package, or independent maths
            cases,
            mistakes=[(lambda a, b: a @ b.T, "this is the inner product: c - 2 d, not the distance d")],
        )
        return "5 seeded pairs of code tables"

Used as `check.hamming(hamming)`: one line `✓ hamming: 5 seeded pairs of code tables`, or `CheckFailed`. For
anything that `compare` does not fit there are its parts: `call`, `expect_tensor`, `expect_close`, `expect`.
"""

from __future__ import annotations

import copy
import functools
import math
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

RESULT = "the result"  # what a learner's value is called where a check gives it no other name
Mistake = tuple[Callable[..., Any], str]  # (what a typical mistake computes, what to tell the learner)


class CheckFailed(AssertionError):
    """The learner's answer is not right yet; the message says why."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows this instead of a stack of frames inside the check."""
        return [f"✗ {self}"]


def fail(message: str) -> NoReturn:
    """Raise CheckFailed, without the chain of errors that led here."""
    raise CheckFailed(message) from None


def check(function: Callable[..., str]) -> Callable[..., None]:
    """Turn a function that tests a learner's function into a check.

    The decorated function gets the learner's function (and whatever else it wants), raises CheckFailed
    through this module's helpers, and returns a short text of what was tested, printed behind a ✓.
    """

    @functools.wraps(function)
    def checked(answer: Callable, *args: Any, **kwargs: Any) -> None:
        if not callable(answer):
            fail(f"got {show(answer)}, not a function: pass the function itself, without calling it")
        tested = function(answer, *args, **kwargs)
        print(f"✓ {function.__name__}: {tested}")

    return checked


def call(function: Callable, /, *args: Any, case: str = "", **kwargs: Any) -> Any:
    """Call the learner's function; report what it raises, and inputs that it changed.

    Args:
        function: the learner's function.
        args: its positional arguments.
        case: name of the case for messages; made from the arguments when empty.
        kwargs: its keyword arguments.

    Returns:
        What the function returns.

    Raises:
        CheckFailed: it raised anything, or changed one of its inputs in place.
    """
    where = case or f"for {describe(args, kwargs)}"
    before = _copied(args), _copied(kwargs)
    try:
        result = function(*args, **kwargs)
    except CheckFailed:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and not str(error):  # the stub; PyTorch's, about a dtype, has a text
            fail(f"not implemented yet: {_name(function)}")
        fail(f"{where}: {_name(function)} raised {type(error).__name__}: {error}{_place(error, function)}")
    for names, now, then in (
        ([f"argument {number}" for number in range(1, len(args) + 1)], args, before[0]),
        ([repr(name) for name in kwargs], list(kwargs.values()), list(before[1].values())),
    ):
        for name, value, old in zip(names, now, then, strict=True):
            if not _same(value, old):
                fail(
                    f"{where}: {_name(function)} changed its input {name} in place "
                    f"(was {show(old)}, is {show(value)}); return a new value and leave the input as it is"
                )
    return result


def gradient(value: Any, leaf: Tensor, *, name: str, case: str) -> Tensor:
    """The gradient of a right value for one input; CheckFailed if none arrives, or if the way back raises."""
    arrived = None
    if isinstance(value, Tensor) and value.requires_grad:
        try:
            arrived = torch.autograd.grad(value, leaf, allow_unused=True)[0]
        except Exception as error:
            fail(f"{case}: the value is right, but the gradient raised {type(error).__name__}: {error}")
    if arrived is None:
        fail(f"{case}: the value is right, but no gradient reaches {name}, nothing can be differentiated: "
             f"do not detach {name} or convert it to numbers")  # fmt: skip
    return arrived


def expect(condition: bool, message: str) -> None:
    """Raise CheckFailed with `message` unless `condition` holds."""
    if not condition:
        fail(message)


def expect_tensor(
    value: Any,
    *,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    case: str = "",
    name: str = RESULT,
) -> Tensor:
    """Check that a result is a tensor of the given form without NaN, and return it.

    Args:
        value: what the learner's function returned.
        shape: expected shape; None for any.
        dtype: expected dtype; None for any.
        case: name of the case for messages.
        name: what the value is called in messages.

    Returns:
        The value.

    Raises:
        CheckFailed: it is no tensor, or has another shape or dtype, or contains NaN.
    """
    prefix = f"{case}: " if case else ""
    if value is None:
        fail(f"{prefix}{name} is None; is a `return` missing?")
    if not isinstance(value, Tensor):
        fail(f"{prefix}{name} is {_kind(value)} ({show(value)}); a torch.Tensor is needed")
    if shape is not None and tuple(value.shape) != tuple(shape):
        fail(f"{prefix}{name} has shape {tuple(value.shape)}; it must be {tuple(shape)}")
    if dtype is not None and value.dtype != dtype:
        fail(f"{prefix}{name} has dtype {_dtype(value.dtype)}; it must be {_dtype(dtype)}")
    if value.is_floating_point() and bool(value.isnan().any()):
        fail(f"{prefix}{name} contains NaN ({show(value)}); look for 0/0, log(0) or inf - inf")
    return value


def expect_close(
    value: Any,
    expected: Any,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    case: str = "",
    name: str = RESULT,
    mistakes: Iterable[tuple[Any, str]] = (),
) -> None:
    """Check a result against the expected one, and recognise typical mistakes.

    Args:
        value: what the learner's function returned.
        expected: tensor, array, number, bool, or a tuple, list or dict of these. Where a tensor is expected the
            value must be a tensor of the same shape (of dtypes only bool is told from the others); where a
            number is expected a tensor with one element will do.
        rtol: relative tolerance.
        atol: absolute tolerance.
        case: name of the case for messages.
        name: what the value is called in messages.
        mistakes: (value that a typical mistake gives for this case, what to tell the learner).

    Raises:
        CheckFailed: it differs.
    """
    problem = _difference(value, expected, rtol, atol, name)
    if problem is None:
        return
    for wrong, message in mistakes:
        if _difference(value, wrong, rtol, atol, name) is None:
            problem = f"{problem}. {_sentence(message)}"
            break
    fail(f"{case}: {problem}" if case else problem)


def compare(
    function: Callable,
    reference: Callable,
    cases: Sequence[Mapping[str, Any] | tuple],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    mistakes: Sequence[Mistake] = (),
) -> None:
    """Compare the learner's function with a reference on every case.

    Args:
        function: the learner's function.
        reference: computes the right answer from the same arguments.
        cases: arguments of each case, a tuple of positional or a dict of keyword ones. Keep the first
            ones small: they are printed when they fail.
        rtol: relative tolerance.
        atol: absolute tolerance.
        mistakes: (function that makes a typical mistake, what to tell a learner whose result equals its).

    Raises:
        CheckFailed: the first case that differs, with the arguments, both results and the mistake if known.
    """
    for number, arguments in enumerate(cases, start=1):
        args = arguments if isinstance(arguments, tuple) else ()
        kwargs = {} if isinstance(arguments, tuple) else dict(arguments)
        case = f"case {number} of {len(cases)}, {describe(args, kwargs)}"
        expected = reference(*_copied(args), **_copied(kwargs))
        value = call(function, *_copied(args), case=case, **_copied(kwargs))
        wrong = ((mistake(*_copied(args), **_copied(kwargs)), message) for mistake, message in mistakes)
        expect_close(value, expected, rtol=rtol, atol=atol, case=case, mistakes=wrong)


def describe(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Arguments of a call in words: small ones by value, large ones by shape."""
    return ", ".join([*map(show, args), *(f"{name}={show(value)}" for name, value in kwargs.items())])


def show(value: Any, digits: int = 3, most: int = 12) -> str:
    """A value in a few characters: numbers rounded, tensors of up to `most` elements in full."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (np.ndarray, np.generic)):
        value = torch.as_tensor(value)
    if isinstance(value, Tensor):
        if value.numel() > most:
            return f"{_dtype(value.dtype)} tensor {tuple(value.shape)}"
        return show(value.detach().cpu().tolist(), digits, most)
    if isinstance(value, float):
        return f"{value:.{digits}f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.{digits}g}"
    if isinstance(value, (list, tuple)):
        if len(value) > most:
            return f"{type(value).__name__} of {len(value)}"
        inside = ", ".join(show(item, digits, most) for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    if isinstance(value, (int, str)):
        return repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {show(item, digits, most)}" for key, item in value.items()) + "}"
    return _name(value) if callable(value) else f"a {type(value).__name__}"


def _sentence(message: str) -> str:
    """The message with a capital, unless it begins with a symbol or a name of code, whose case has a meaning."""
    return message[:1].upper() + message[1:] if re.match(r"[a-z]{2,}(?![\w.(])", message) else message


def _difference(value: Any, expected: Any, rtol: float, atol: float, name: str) -> str | None:
    """What distinguishes value from expected, None if they agree within tolerance."""
    lead = "" if name == RESULT else f"{name}: "
    if isinstance(expected, np.ndarray):
        expected = torch.as_tensor(expected)
        value = torch.as_tensor(value) if isinstance(value, np.ndarray) else value
    if isinstance(expected, (tuple, list)):
        if not isinstance(value, (tuple, list)) or len(value) != len(expected):
            kind = "None; is a `return` missing?" if value is None else f"{_kind(value)} ({show(value)});"
            form = "" if isinstance(value, (tuple, list)) else ", as a tuple or a list"
            return f"{name} is {kind} {len(expected)} values are needed{form}"
        parts = [
            _difference(a, b, rtol, atol, f"{name.removeprefix('the ')}[{index}]")
            for index, (a, b) in enumerate(zip(value, expected, strict=True))
        ]
        return next((part for part in parts if part is not None), None)
    if isinstance(expected, Mapping):
        if not isinstance(value, Mapping) or set(value) != set(expected):
            found = f"keys {sorted(map(str, value))}" if isinstance(value, Mapping) else _kind(value)
            return f"{name} is {found}; a dict with keys {sorted(map(str, expected))} is needed"
        parts = [
            _difference(value[key], expected[key], rtol, atol, f"{name.removeprefix('the ')}[{key!r}]")
            for key in expected
        ]
        return next((part for part in parts if part is not None), None)
    if isinstance(expected, (str, bool)) or expected is None:
        single = value.item() if isinstance(value, (Tensor, np.generic)) and _count(value) == 1 else value
        same_kind = isinstance(single, type(expected))
        return None if same_kind and single == expected else f"{lead}got {show(value)}, expected {show(expected)}"
    if isinstance(expected, Tensor) and expected.ndim > 0:
        try:
            expect_tensor(value, shape=expected.shape, name=name)
        except CheckFailed as error:
            return str(error)
        if (value.dtype == torch.bool) != (expected.dtype == torch.bool):
            return f"{name} has dtype {_dtype(value.dtype)}; it must be {_dtype(expected.dtype)}"
    else:
        if value is None:
            return f"{name} is None; is a `return` missing?"
        if not isinstance(value, (Tensor, np.ndarray, np.generic, int, float)):
            return f"{name} is {_kind(value)} ({show(value)}); one number is needed"
        if _count(value) != 1:
            return f"{name} has shape {tuple(value.shape)} ({show(value)}); one number is needed"
    ours = torch.as_tensor(value).detach().cpu().to(torch.float64).reshape(-1)
    right = torch.as_tensor(expected).detach().cpu().to(torch.float64).reshape(-1)
    close = torch.isclose(ours, right, rtol=rtol, atol=atol, equal_nan=True)
    if bool(close.all()):
        return None
    if bool(ours.isnan().any() & ~right.isnan().any()):
        return f"{name} contains NaN ({show(value)}); look for 0/0, log(0) or inf - inf"
    if len(ours) <= 12:
        digits = _digits(ours, right)
        return f"{lead}got {show(value, digits)}, expected {show(expected, digits)}"
    worst = int((ours - right).abs().nan_to_num(nan=math.inf).argmax())
    index = tuple(int(i) for i in np.unravel_index(worst, tuple(expected.shape)))
    place = index[0] if len(index) == 1 else index
    return (
        f"{lead}{int((~close).sum())} of {len(ours)} values differ, most at {place}: "
        f"got {show(float(ours[worst]))}, expected {show(float(right[worst]))}"
    )


def _digits(ours: Tensor, right: Tensor) -> int:
    """Enough digits to see the difference."""
    gap = float((ours - right).abs().nan_to_num().max())
    return (
        3 if gap == 0 or gap >= 2e-3 or not math.isfinite(gap) else min(10, 1 - math.floor(math.log10(gap)))
    )


def _copied(value: Any) -> Any:
    """A copy of arguments: data, generators and modules are copied, other objects are passed on."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, torch.Generator):
        return value.clone_state()
    if isinstance(value, (np.ndarray, nn.Module)):
        return copy.deepcopy(value)
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value


def _same(now: Any, then: Any) -> bool:
    """Whether an argument is still what it was before the call; only data is looked into."""
    if isinstance(then, Tensor):
        return now.shape == then.shape and torch.equal(
            now.isnan() | (now == then), torch.ones_like(now, dtype=bool)
        )
    if isinstance(then, np.ndarray):
        return np.array_equal(now, then, equal_nan=then.dtype.kind == "f")
    if isinstance(then, (list, tuple)):
        return len(now) == len(then) and all(_same(a, b) for a, b in zip(now, then, strict=True))
    if isinstance(then, dict):
        return list(now) == list(then) and all(_same(now[key], then[key]) for key in then)
    return True


def _place(error: Exception, function: Callable) -> str:
    """The line of the learner's cell that raised, if it can be found."""
    code = getattr(function, "__code__", None)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if code is not None and frame.filename == code.co_filename
    ]
    return f" (line {frames[-1].lineno}: `{frames[-1].line}`)" if frames and frames[-1].line else ""


def _count(value: Any) -> int:
    """Number of elements."""
    return value.numel() if isinstance(value, Tensor) else int(np.size(value))


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}" if value is not None else "None"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""The framework of the answer checks: right answers pass, and each way of being wrong is named."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pplkit import checks
from pplkit.checks import CheckFailed, call, check, compare, expect, expect_close, expect_tensor, show

VALUES = torch.tensor([1.0, 2.0, 6.0])


@check
def mean(function):
    """A small check as a topic module would write it."""
    many = torch.randn(50, generator=torch.Generator().manual_seed(0))
    compare(
        function,
        lambda values: values.mean(),
        [(VALUES,), dict(values=many)],
        mistakes=[(lambda values: values.sum(), "you forgot to divide by the number of values")],
    )
    return "a small and a large case"


def failure(answer, *arguments) -> str:
    with pytest.raises(CheckFailed) as caught:
        mean(answer, *arguments)
    return str(caught.value)


def test_success_prints_one_line(capsys):
    assert mean(lambda values: values.mean()) is None
    assert capsys.readouterr().out == "✓ mean: a small and a large case\n"


def test_failure_prints_nothing(capsys):
    failure(lambda values: values.sum())
    assert capsys.readouterr().out == ""


def test_number_is_accepted_for_a_scalar_tensor():
    mean(lambda values: values.mean().item())
    mean(lambda values: values.mean().reshape(1))


def test_stub_is_not_implemented_yet():
    def stub(values):
        raise NotImplementedError

    assert failure(stub) == "not implemented yet: stub"


def test_known_mistake_is_named_with_the_case_and_both_results():
    message = failure(lambda values: values.sum())
    assert message == (
        "case 1 of 2, [1.000, 2.000, 6.000]: got 9.000, expected 3.000. "
        "You forgot to divide by the number of values"
    )


def test_unknown_mistake_shows_results_only():
    assert failure(lambda values: values.max()).endswith("got 6.000, expected 3.000")


def test_mistake_in_a_later_case_only():
    assert failure(lambda values: values.mean() if len(values) < 10 else values.sum()).startswith(
        "case 2 of 2, values=float32 tensor (50,): got"
    )


def test_small_differences_are_shown_with_enough_digits():
    assert "got 3.00100, expected 3.00000" in failure(lambda values: values.mean() + 1e-3)
    assert "got 3.00040, expected 3.00000" in failure(lambda values: values.mean() + 4e-4)


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), KeyError("a"), RuntimeError("size 3 and 4")])
def test_any_exception_is_reported_with_input_and_line(error):
    def broken(values):
        raise error

    message = failure(broken)
    assert message.startswith(
        f"case 1 of 2, [1.000, 2.000, 6.000]: broken raised {type(error).__name__}: {error}"
    )
    assert "`raise error`" in message


def test_exception_of_the_learner_is_not_chained():
    with pytest.raises(CheckFailed) as caught:
        mean(lambda values: values.nonsense)
    assert caught.value.__suppress_context__


def test_changed_input_is_reported():
    def greedy(values):
        values /= len(values)
        return values.sum()

    before = VALUES.clone()
    message = failure(greedy)
    assert VALUES.equal(before)  # the case itself is not spoilt for the next try
    assert message == (
        "case 1 of 2, [1.000, 2.000, 6.000]: greedy changed its input argument 1 in place (was "
        "[1.000, 2.000, 6.000], is [0.333, 0.667, 2.000]); return a new value and leave the input as it is"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.append(1),
        lambda data: data.sort(),
        lambda data: data.__setitem__(0, torch.tensor([5.0])),
        lambda data: data[0].add_(1),
    ],
)
def test_changes_inside_lists_are_found(spoil):
    data = [torch.tensor([3.0]), torch.tensor([1.0])]
    with pytest.raises(CheckFailed, match="changed its input 'data' in place"):
        call(lambda data: spoil(data), data=data)


def test_changes_in_arrays_and_dicts_are_found_and_nan_is_no_change():
    with pytest.raises(CheckFailed, match="argument 1"):
        call(lambda a: a.fill(0), np.ones(3))
    with pytest.raises(CheckFailed, match="argument 1"):
        call(lambda a: a.pop("x"), {"x": 1})
    call(lambda a, b: None, torch.tensor([math.nan]), np.array([math.nan]))


def test_inputs_that_require_gradients_and_graph_tensors_are_accepted():
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    compare(lambda x: 2 * x, lambda x: x + x, [(leaf,), (leaf * 3,)])
    value = call(lambda x: x.sum(), leaf)
    value.backward()
    assert leaf.grad.tolist() == [1.0, 1.0]


def test_reference_does_not_consume_the_learners_generator():
    def draw(random):
        return torch.rand(3, generator=random)

    compare(draw, draw, [(torch.Generator().manual_seed(0),)])


def test_reference_does_not_train_the_learners_module():
    def step(module):
        with torch.no_grad():
            module.weight.mul_(0.5)
        return module.weight.sum().item()

    compare(step, step, [(nn.Linear(2, 1),)])


def test_none_type_shape_and_nan():
    assert failure(lambda values: None).endswith("the result is None; is a `return` missing?")
    assert failure(lambda values: "3").endswith("the result is of type str ('3'); one number is needed")
    assert failure(lambda values: values).endswith(
        "has shape (3,) ([1.000, 2.000, 6.000]); one number is needed"
    )
    assert "contains NaN" in failure(lambda values: values.mean() * math.nan)


def test_a_value_instead_of_the_function():
    assert failure(3.0) == "got 3.000, not a function: pass the function itself, without calling it"


def test_expect():
    expect(True, "fine")
    with pytest.raises(CheckFailed, match="^not fine$"):
        expect(False, "not fine")


@pytest.mark.parametrize(
    ("value", "wanted", "message"),
    [
        (None, {}, "is None; is a `return` missing"),
        ([1.0], {}, r"of type list \(\[1.000\]\); a torch.Tensor is needed"),
        (np.ones(2), {}, "of type ndarray"),
        (torch.ones(2, 3), {"shape": (3, 2)}, r"shape \(2, 3\); it must be \(3, 2\)"),
        (torch.ones(2), {"dtype": torch.int8}, "dtype float32; it must be int8"),
        (torch.tensor([1.0, math.nan]), {}, "contains NaN"),
    ],
)
def test_expect_tensor_refuses(value, wanted, message):
    with pytest.raises(CheckFailed, match=message):
        expect_tensor(value, **wanted)


def test_expect_tensor_returns_the_tensor():
    value = torch.ones(2, 3, dtype=torch.int8)
    assert expect_tensor(value, shape=(2, 3), dtype=torch.int8) is value


@pytest.mark.parametrize(
    ("value", "expected", "message"),
    [
        (torch.ones(2), torch.ones(3), r"shape \(2,\); it must be \(3,\)"),
        (torch.ones(3), torch.tensor([True, True, True]), "dtype float32; it must be bool"),
        (torch.ones(20, 5), torch.zeros(20, 5), r"100 of 100 values differ, most at \(0, 0\)"),
        ((1.0,), (1.0, 2.0), "2 values are needed"),
        (1.0, (1.0, 2.0), "2 values are needed"),
        ((1.0, 3.0), (1.0, 2.0), "got 3.000, expected 2.000"),
        ({"a": 1}, {"b": 1}, r"keys \['a'\]; a dict with keys \['b'\] is needed"),
        (3, {"b": 1}, "of type int; a dict"),
        ({"b": 2}, {"b": 1}, "got 2, expected 1"),
        (1, True, "got 1, expected True"),
        ("a", "b", "got 'a', expected 'b'"),
        (0, None, "got 0, expected None"),
        (math.inf, 1.0, "got inf, expected 1.000"),
        (np.zeros(2), np.ones(2), r"got \[0.000, 0.000\], expected \[1.000, 1.000\]"),
    ],
)
def test_expect_close_refuses(value, expected, message):
    with pytest.raises(CheckFailed, match=message):
        expect_close(value, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (np.float64(1.0), torch.tensor(1.0)),
        (torch.tensor(1), 1),
        (torch.tensor([1, 2]), torch.tensor([1.0, 2.0])),
        (torch.tensor(True), True),
        (np.bool_(False), False),
        ([1.0, torch.ones(2)], (1.0, torch.ones(2))),
        ({"a": "b", "c": None}, {"a": "b", "c": None}),
        (torch.tensor([math.inf]), torch.tensor([math.inf])),
        (np.ones(2), np.ones(2)),
        (torch.ones(2), np.ones(2)),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
    ],
)
def test_expect_close_accepts(value, expected):
    expect_close(value, expected)


def test_failure_is_shown_in_ipython_without_frames():
    assert CheckFailed("half of it")._render_traceback_() == ["✗ half of it"]
    assert issubclass(CheckFailed, AssertionError)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (1e-5, "1e-05"),
        (0.0, "0.000"),
        (True, "True"),
        (None, "None"),
        ((1,), "(1,)"),
        ([1, [2.0]], "[1, [2.000]]"),
        (list(range(50)), "list of 50"),
        (torch.zeros(4, 4), "float32 tensor (4, 4)"),
        (torch.zeros(2, 2, dtype=torch.int8), "[[0, 0], [0, 0]]"),
        (np.int64(3), "3"),
        ({"a": 1.0}, "{'a': 1.000}"),
        ("x" * 100, "'" + "x" * 56 + "..."),
        (math.sin, "sin"),
        (object(), "a object"),
    ],
)
def test_show(value, text):
    assert show(value) == text


def test_importing_the_framework_imports_no_widget():
    assert not hasattr(checks, "ipywidgets")

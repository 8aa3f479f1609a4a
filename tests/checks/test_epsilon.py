"""Checks of notebook 10: right answers pass, typical wrong ones are told what is wrong."""

import math

import numpy as np
import pytest
import torch

from pplkit import quality
from pplkit.checks import CheckFailed
from pplkit.checks import epsilon as check


def psnr(clean, protected):
    error = (clean.double() - protected.double()).pow(2).mean((1, 2, 3))
    return 10 * (255**2 / error).log10()


def flips(u, weights, pattern):
    epsilon = -u / (weights @ pattern)
    epsilon[epsilon <= 0] = math.inf
    return epsilon


def smallest(epsilons, values, target):
    for k, value in enumerate(values):
        if value <= target:
            if k == 0:
                return epsilons[0]
            return float(np.interp(target, [value, values[k - 1]], [epsilons[k], epsilons[k - 1]]))
    return math.inf


RIGHT = {
    "psnr": [psnr, quality.psnr],
    "flip_epsilon": [flips],
    "smallest_epsilon": [smallest, lambda e, v, t: torch.tensor(smallest(e, v, t))],
}


def stub(*args, **kwargs):
    raise NotImplementedError


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_and_the_stub_fails(name, capsys):
    for answer in RIGHT[name]:
        getattr(check, name)(answer)
        assert capsys.readouterr().out.startswith(f"✓ {name}: ")
    with pytest.raises(CheckFailed, match="not implemented yet"):
        getattr(check, name)(stub)


def from_error(value):
    return lambda a, b: value((a.float() - b.float()).square().flatten(1).mean(1))


def uint8_square(a, b):
    return 10 * torch.log10(255**2 / (a - b).square().float().flatten(1).mean(1))


def grid_after(epsilons, values, target):
    return next((e for e, v in zip(epsilons, values, strict=True) if v <= target), math.inf)


def grid_before(epsilons, values, target):
    after = grid_after(epsilons, values, target)
    return after if after in (math.inf, epsilons[0]) else epsilons[epsilons.index(after) - 1]


def never_is_the_end(epsilons, values, target):
    return min(smallest(epsilons, values, target), epsilons[-1])


def from_wrong_end(epsilons, values, target):
    right = smallest(epsilons, values, target)
    if right in (math.inf, epsilons[0]):
        return right
    a, b = grid_before(epsilons, values, target), grid_after(epsilons, values, target)
    return a + b - right


WRONG = [
    ("psnr", lambda a, b: 10 * torch.log10(255**2 / (a - b).float().square().flatten(1).mean(1)), "subtracted as uint8"),
    ("psnr", uint8_square, "taken in uint8"),
    ("psnr", from_error(lambda e: 10 * torch.log10(1 / e)), "peak is 255"),
    ("psnr", from_error(lambda e: 20 * torch.log10(255**2 / e)), "Twice too large"),
    ("psnr", from_error(lambda e: 10 * torch.log10(255 / e)), "squared too"),
    ("psnr", from_error(lambda e: 10 * torch.log(255**2 / e)), "natural logarithm"),
    ("psnr", from_error(lambda e: torch.log10(255**2 / e)), "factor 10"),
    ("psnr", from_error(lambda e: 10 * torch.log10(e / 255**2)), "Upside down"),
    ("psnr", from_error(lambda e: 10 * torch.log10(255**2 / e.sqrt())), "without a root"),
    ("psnr", from_error(lambda e: 10 * torch.log10(255**2 / e.mean()).expand(len(e))), "averaged over the images"),
    ("psnr", from_error(lambda e: 10 * torch.log10(255**2 / e.mean())), r"shape \(\)"),
    ("psnr", from_error(lambda e: 10 * torch.log10(255**2 / e.clamp_min(1e-3))), "two equal images"),
    ("flip_epsilon", lambda u, w, p: -u / (w @ p), "Return infinity there"),
    ("flip_epsilon", lambda u, w, p: u / (w @ p), "sign is wrong"),
    ("flip_epsilon", lambda u, w, p: (u / (w @ p)).abs(), "direction was ignored"),
    ("flip_epsilon", lambda u, w, p: u.abs() / w.abs().sum(1), r"over \*all\* patterns"),
    ("flip_epsilon", lambda u, w, p: torch.where(-u / (w @ p) > 0, -u / (w @ p), 0.0), "infinity, not 0"),
    ("flip_epsilon", lambda u, w, p: flips(u, w, p)[None], "shape"),
    ("smallest_epsilon", grid_after, "first measured"),
    ("smallest_epsilon", grid_before, "last measured"),
    ("smallest_epsilon", from_wrong_end, "wrong end"),
    ("smallest_epsilon", never_is_the_end, "infinity, not the largest"),
    ("smallest_epsilon", lambda e, v, t: smallest(e[::-1], v[::-1], t), "got"),
    ("smallest_epsilon", lambda e, v, t: None, "return"),
]


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_are_explained(name, answer, message):
    with pytest.raises(CheckFailed, match=message):
        getattr(check, name)(answer)


def test_the_last_crossing_is_recognised_where_the_curve_rises_again():
    def last(epsilons, values, target):
        k = max((k for k in range(1, len(values)) if values[k] <= target < values[k - 1]), default=None)
        return smallest(epsilons, values, target) if k is None else smallest(epsilons[k - 1:], values[k - 1:], target)

    with pytest.raises(CheckFailed, match="last crossing"):
        check.smallest_epsilon(last)


def test_the_first_point_may_lie_on_the_target():
    def above_only(epsilons, values, target):
        if values == [0.6, 0.2]:
            raise IndexError("no point before the first")
        return smallest(epsilons, values, target)

    with pytest.raises(CheckFailed, match="first point lies on the target: raised IndexError"):
        check.smallest_epsilon(above_only)

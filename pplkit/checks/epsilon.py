"""Answer checks of notebook 10: PSNR, the ε at which a bit flips, the smallest ε that buys a wanted privacy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pplkit import quality
from pplkit.checks import CheckFailed, call, check, compare, expect, expect_close, expect_tensor


def _images(seed: int, shape: tuple[int, ...], change: int) -> tuple[Tensor, Tensor]:
    """Images and the same with a change of at most `change` grey levels, uint8; the first pixel changes for sure."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, shape, generator=random)
    moved = images + torch.randint(-change, change + 1, shape, generator=random)
    moved[:, 0, 0, 0] = torch.where(images[:, 0, 0, 0] < 128, images[:, 0, 0, 0] + change, images[:, 0, 0, 0] - change)
    return images.to(torch.uint8), moved.clamp(0, 255).to(torch.uint8)


@check
def psnr(function: Callable) -> str:
    """10.1: 10 log10(255² / MSE) of each image."""
    small = tuple(torch.tensor([[pixels]], dtype=torch.uint8) for pixels in ([[10, 20], [30, 40]], [[0, 20], [30, 60]]))
    cases = [small, _images(1, (4, 1, 9, 8), 12), _images(2, (3, 3, 8, 8), 60), _images(3, (2, 1, 28, 28), 3)]

    def error(clean: Tensor, protected: Tensor) -> Tensor:
        return (clean.float() - protected.float()).square().flatten(1).mean(1)  # (N,)

    compare(
        function,
        quality.psnr,
        cases,
        mistakes=[
            (lambda a, b: 10 * torch.log10(255**2 / (a - b).float().square().flatten(1).mean(1)),
             "The images were subtracted as uint8, where 10 - 20 is 246; turn them into floats first"),
            (lambda a, b: 10 * torch.log10(255**2 / (a - b).square().float().flatten(1).mean(1)),
             "Differences and squares were taken in uint8, where 20² = 400 becomes 144; turn the images into floats first"),
            (lambda a, b: 10 * torch.log10(1 / error(a, b)), "The peak is 255 for pixels in 0..255, not 1"),
            (lambda a, b: 20 * torch.log10(255**2 / error(a, b)), "Twice too large: 10 log10 of a ratio of squares"),
            (lambda a, b: 10 * torch.log10(255 / error(a, b)), "The peak is squared too: 255²"),
            (lambda a, b: 10 * torch.log(255**2 / error(a, b)), "This is the natural logarithm; decibels use log10"),
            (lambda a, b: torch.log10(255**2 / error(a, b)), "The factor 10 of the decibel is missing"),
            (lambda a, b: 10 * torch.log10(error(a, b) / 255**2), "Upside down: more error must give a smaller value"),
            (lambda a, b: 10 * torch.log10(255**2 / error(a, b).mean()).expand(len(a)),
             "The error was averaged over the images; each image has its own value"),
            (lambda a, b: 10 * torch.log10(255**2 / (error(a, b) * a[0].numel())),
             "The squared error was summed over the pixels; take their mean"),
            (lambda a, b: 10 * torch.log10(255**2 / error(a, b).sqrt()), "MSE is the mean square itself, without a root"),
        ],
    )  # fmt: skip
    same = _images(4, (2, 1, 8, 8), 5)[0]
    case = "two equal images"
    value = expect_tensor(call(function, same, same.clone(), case=case), shape=(2,), case=case)
    expect(bool((value == math.inf).all()), f"{case}: got {value.tolist()}; nothing changed, so the value is infinite")
    return f"{len(cases)} pairs of batches, and two equal images"


def _flip_epsilon(u: Tensor, weights: Tensor, pattern: Tensor) -> Tensor:
    rate = weights @ pattern  # (c,)
    epsilon = -u / rate
    return torch.where(epsilon > 0, epsilon, math.inf)


@check
def flip_epsilon(function: Callable) -> str:
    """10.2: where u + ε w·p crosses 0."""
    cases = [(torch.tensor([0.6, -0.4, 0.2]), torch.tensor([[-1.0, 1.0], [1.0, 1.0], [2.0, 0.0]]), torch.tensor([1.0, -0.5]))]
    for seed, (bits, pixels) in enumerate([(5, 4), (16, 30), (64, 784)]):
        random = torch.Generator().manual_seed(seed)
        cases.append((torch.randn(bits, generator=random), torch.randn(bits, pixels, generator=random),
                      torch.rand(pixels, generator=random) * 2 - 1))  # fmt: skip
    compare(
        function,
        _flip_epsilon,
        cases,
        mistakes=[
            (lambda u, w, p: -u / (w @ p),
             "A negative ε means: the pattern pushes this bit away from 0, so it never flips. Return infinity there"),
            (lambda u, w, p: u / (w @ p), "The sign is wrong: u + ε w·p = 0 gives ε = -u / (w·p)"),
            (lambda u, w, p: torch.where(u / (w @ p) > 0, u / (w @ p), math.inf),
             "The sign is wrong: u + ε w·p = 0 gives ε = -u / (w·p)"),
            (lambda u, w, p: (u / (w @ p)).abs(),
             "The direction was ignored: a pattern that pushes a positive bit up does not flip it"),
            (lambda u, w, p: u.abs() / w.abs().sum(1),
             "This is the smallest ε over *all* patterns; here the pattern is given"),
            (lambda u, w, p: torch.where(-(w @ p) / u > 0, -(w @ p) / u, math.inf), "The fraction is the wrong way up"),
            (lambda u, w, p: torch.where(-u / (w @ p) > 0, -u / (w @ p), 0.0), "A bit that never flips gets infinity, not 0"),
            (lambda u, w, p: torch.where(-u / (w @ p) > 0, -u / (w @ p), torch.nan), "A bit that never flips gets infinity"),
        ],
    )  # fmt: skip
    return f"{len(cases)} linear codes, up to 64 bits"


def _smallest_epsilon(epsilons: Sequence[float], values: Sequence[float], target: float) -> float:
    if values[0] <= target:
        return epsilons[0]
    for k in range(1, len(values)):
        if values[k] <= target:
            share = (values[k - 1] - target) / (values[k - 1] - values[k])
            return epsilons[k - 1] + share * (epsilons[k] - epsilons[k - 1])
    return math.inf


def _crossing(pick: Callable[..., float]) -> Callable[..., float]:
    """The interval of the first crossing, handed to `pick(ε before, ε after, value before, value after, target)`."""

    def wrong(epsilons: Sequence[float], values: Sequence[float], target: float) -> float:
        for k in range(1, len(values)):
            if values[k] <= target < values[k - 1]:
                return pick(epsilons[k - 1], epsilons[k], values[k - 1], values[k], target)
        return _smallest_epsilon(epsilons, values, target)

    return wrong


def _last_crossing(epsilons: Sequence[float], values: Sequence[float], target: float) -> float:
    found = [_smallest_epsilon(epsilons[k - 1:k + 1], values[k - 1:k + 1], target)
             for k in range(1, len(values)) if values[k] <= target < values[k - 1]]  # fmt: skip
    return found[-1] if found else _smallest_epsilon(epsilons, values, target)


@check
def smallest_epsilon(function: Callable) -> str:
    """10.3: first crossing of the target on the polyline through the measured points."""
    grid = [0.0, 0.1, 0.3, 0.5, 1.0]
    cases = [
        (grid, [0.8, 0.6, 0.2, 0.1, 0.1], 0.3),
        (grid, [0.8, 0.7, 0.4, 0.25, 0.05], 0.5),
        (grid, [0.8, 0.3, 0.5, 0.2, 0.4], 0.35),  # not monotone: rises again
        (grid, [0.8, 0.6, 0.5, 0.4, 0.3], 0.3),  # exactly at the end
        (grid, [0.2, 0.1, 0.1, 0.1, 0.1], 0.3),  # reached without any noise
        (grid, [0.8, 0.7, 0.6, 0.5, 0.4], 0.3),  # never
    ]
    compare(
        function,
        _smallest_epsilon,
        cases,
        mistakes=[
            (_crossing(lambda a, b, u, v, t: b), "This is the first measured ε below the target; interpolate between the two"),
            (_crossing(lambda a, b, u, v, t: a), "This is the last measured ε above the target; interpolate between the two"),
            (_crossing(lambda a, b, u, v, t: (a + b) / 2),
             "This is the middle of the interval; the straight line crosses the target elsewhere"),
            (_crossing(lambda a, b, u, v, t: a + (t - v) / (u - v) * (b - a)),
             "The share is counted from the wrong end: at value = target of the left point it must be 0"),
            (_last_crossing, "This is the last crossing; the smallest ε is asked for"),
            (lambda e, v, t: min(_smallest_epsilon(e, v, t), e[-1]),
             "The target is never reached here: that is infinity, not the largest ε"),
            (lambda e, v, t: 0.0 if _smallest_epsilon(e, v, t) == math.inf else _smallest_epsilon(e, v, t),
             "The target is never reached here: that is infinity, not 0"),
            (lambda e, v, t: min(e, key=lambda one: abs(v[e.index(one)] - t)),
             "This is the measured ε nearest to the target; interpolate, and never land above the target"),
        ],
    )  # fmt: skip
    epsilons, values = [0.2, 0.4], [0.6, 0.2]
    try:
        value = function(epsilons, values, 0.6)
    except Exception as error:
        raise CheckFailed(f"the first point lies on the target: raised {type(error).__name__} ({error})") from None
    expect_close(value, 0.2, case="the first point lies on the target")
    return f"{len(cases) + 1} curves, one that rises again and one that never gets there"

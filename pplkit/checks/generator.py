"""Checks of notebook 04: sizes and parameters by hand, the ball of norm 2, rounding toward zero, when training pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pplkit import budget
from pplkit.checks import call, check, compare, expect, expect_close, expect_tensor
from pplkit.generator import COLOUR_WIDTHS, GREY_WIDTHS, PerturbationGenerator


def _halved(size: int, stages: int, halve: Callable[[int], int]) -> list[int]:
    sizes = [size]
    for _ in range(stages):
        sizes.append(halve(sizes[-1]))
    return sizes


@check
def encoder_sizes(function: Callable) -> str:
    """04.1: side lengths through 3 × 3 convolutions with stride 2 and padding 1."""
    cases = [(28, 4), (32, 4), (224, 5), (5, 1), (1, 2)]

    def right(size: int, stages: int) -> list[int]:
        return _halved(size, stages, lambda s: (s + 2 - 3) // 2 + 1)

    compare(
        function,
        right,
        cases,
        mistakes=[
            (lambda size, stages: _halved(size, stages, lambda s: s // 2),
             "odd sizes are rounded up here, because padding 1 adds two pixels, one on both sides: a 7 becomes a 4, not a 3"),
            (lambda size, stages: _halved(size, stages, lambda s: (s - 1) // 2),
             "the padding is missing (one pixel on both sides), or the + 1: a window that slides n steps has n + 1 places"),
            (lambda size, stages: [size] * (stages + 1), "the stride is missing: it halves the size"),
            (lambda size, stages: right(size, stages)[1:], "the list starts with the size of the image itself"),
            (lambda size, stages: right(size, stages)[:-1], "the last stage is missing: the list has stages + 1 sizes"),
            (lambda size, stages: right(size, stages)[-1], "return all the sizes as a list, not only the last one"),
        ],
    )  # fmt: skip
    return f"{len(cases)} image sizes, even and odd"


@check
def count_parameters(function: Callable) -> str:
    """04.2: weights of the generator, convolution by convolution."""

    def pairs(channels: int, widths: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        down, up = [channels, *widths], list(reversed(widths))
        return list(zip(down[:-1], down[1:], strict=True)), list(zip(up[:-1], up[1:], strict=True))

    def count(channels: int, widths: Sequence[int], *, area: int = 9, norm: int = 2, bias: int = 0, last_bias: int = 1,
              last_norm: int = 0, encoder: int = 1, decoder: int = 1, last: int = 1) -> int:  # fmt: skip
        into, out_of = pairs(channels, widths)
        stages = into * encoder + out_of * decoder
        total = sum(area * i * o + (norm + bias) * o for i, o in stages)
        return total + last * (area * widths[0] * channels + (last_bias + last_norm) * channels)

    def right(channels: int, widths: Sequence[int]) -> int:
        return sum(p.numel() for p in PerturbationGenerator(channels, widths).parameters())

    cases = [(1, (2, 5)), (1, GREY_WIDTHS), (3, (4, 8, 16)), (3, COLOUR_WIDTHS)]
    compare(
        function,
        right,
        cases,
        rtol=0,
        atol=0,
        mistakes=[
            (lambda c, w: count(c, w, norm=0), "BatchNorm is missing: a scale and a shift per channel of every stage"),
            (lambda c, w: count(c, w, norm=1), "BatchNorm has two weights per channel, a scale and a shift"),
            (lambda c, w: count(c, w, norm=4),
             "BatchNorm's running mean and variance are buffers, not weights: nothing trains them by gradient"),
            (lambda c, w: count(c, w, bias=1),
             "the convolutions before a BatchNorm have no bias, BatchNorm's shift replaces it; only the last one has"),
            (lambda c, w: count(c, w, last_bias=0), "the last convolution has a bias, because no BatchNorm follows it"),
            (lambda c, w: count(c, w, last_norm=2), "no BatchNorm follows the last convolution, tanh does"),
            (lambda c, w: count(c, w, area=3), "a 3 × 3 kernel has 9 weights per pair of channels, not 3"),
            (lambda c, w: count(c, w, area=1), "the kernel's 3 × 3 = 9 weights per pair of channels are missing"),
            (lambda c, w: count(c, w, area=25), "the kernels are 3 × 3, not 5 × 5"),
            (lambda c, w: count(c, w, decoder=0, last=0), "this is the encoder alone; the decoder is missing"),
            (lambda c, w: count(c, w, decoder=0), "the decoder's stages are missing"),
            (lambda c, w: count(c, w, last=0), "the last convolution, back to the image's channels, is missing"),
            (lambda c, w: count(1, w), "the image's channels are ignored: a colour image has 3, in the first and last layer"),
        ],
    )  # fmt: skip
    return f"{len(cases)} generators, grey and colour"


@check
def scale_into_ball(function: Callable) -> str:
    """04.3: δ scaled down where its root mean square per image exceeds ε."""
    small = torch.tensor([[[[0.3, 0.4]]], [[[0.03, 0.04]]], [[[1.0, 0.0]]]])  # (3, 1, 1, 2)
    cases = [(small, 0.1)]
    for seed, shape, epsilon in ((0, (4, 1, 5, 4), 0.3), (1, (3, 3, 4, 4), 0.05)):
        random = torch.Generator().manual_seed(seed)
        size = torch.rand((shape[0], 1, 1, 1), generator=random)  # (B, 1, 1, 1): some within the ball, some outside
        cases.append(((torch.rand(shape, generator=random) * 2 - 1) * size, epsilon))

    def scaled(delta: Tensor, epsilon: float, norm: Tensor, always: bool = False) -> Tensor:
        factor = epsilon / norm
        return delta * (factor if always else factor.clamp(max=1)).reshape(-1, 1, 1, 1)

    def rms(delta: Tensor) -> Tensor:
        return delta.flatten(1).square().mean(1).sqrt()  # (B,)

    compare(
        function,
        lambda delta, epsilon: budget.perturbation(delta, epsilon, "2"),
        cases,
        mistakes=[
            (lambda d, e: scaled(d, e, d.flatten(1).norm(dim=1)),
             "this is the plain Euclidean norm, which grows with the number of pixels; take the root of the mean square"),
            (lambda d, e: scaled(d, e, rms(d), always=True),
             "a perturbation that is within the ball must stay as it is; this stretches it to the full budget"),
            (lambda d, e: scaled(d, e, d.flatten(1).norm(dim=1), always=True),
             "this is the plain Euclidean norm, not the root mean square, and it stretches small perturbations as well"),
            (lambda d, e: scaled(d, e, rms(d[None].flatten(1)[:, None])),
             "one norm was taken over the whole batch; every image has its own budget"),
            (lambda d, e: scaled(d, e, rms(d).square()), "the root is missing: this is the mean square"),
            (lambda d, e: scaled(d, e, d.flatten(1).abs().mean(1)), "this is the mean |δ|, the norm for p = 1"),
            (lambda d, e: scaled(d, e, d.flatten(1).abs().amax(1)), "this is the largest |δ|, the norm for p = ∞"),
            *((lambda d, e, less=less: scaled(d, e, d.flatten(1).std(1, correction=less).clamp_min(1e-12)),
               "this is the standard deviation, which takes the mean off first; the root mean square does not")
              for less in (0, 1)),
            (lambda d, e: d.clamp(-e, e), "this limits every pixel on its own, which is the ball of p = ∞"),
            (lambda d, e: e * d, "this scales every perturbation by ε; only those outside the ball are to be scaled"),
            (lambda d, e: d, "nothing was scaled down: compare the root mean square with ε itself (was it multiplied by 255?)"),
            (lambda d, e: d / rms(d).reshape(-1, 1, 1, 1).clamp(min=1e-12),
             "this has a root mean square of 1, not of ε, and perturbations within the ball must stay as they are"),
        ],
    )  # fmt: skip
    zero = torch.zeros(2, 1, 3, 3)
    value = expect_tensor(call(function, zero, 0.1, case="δ = 0"), shape=zero.shape, case="δ = 0")
    expect(bool((value == 0).all()), "δ = 0: no perturbation must stay no perturbation")
    return f"{len(cases)} batches inside and outside of the ball, and δ = 0"


@check
def round_toward_zero(function: Callable) -> str:
    """04.4: the published bytes: the change in grey levels cut toward zero, added to the clean bytes."""
    images = torch.tensor([[[[100, 100, 200, 200, 0, 255, 7, 30]]]], dtype=torch.uint8)
    change = torch.tensor([[[[25.5, -25.5, 0.7, -0.7, 3.6, -0.2, 0.0, -29.9]]]])
    cases = [(images, (images + change) / 255)]
    for seed in (0, 1):
        random = torch.Generator().manual_seed(seed)
        clean = torch.randint(41, 215, (2, 1, 4, 4), generator=random).to(torch.uint8)  # so that z needs no clip
        levels = torch.randint(-40, 41, clean.shape, generator=random).float()
        levels += torch.randint(1, 4, clean.shape, generator=random) / 4 * levels.sign()  # never a hair from a whole level
        cases.append((clean, (clean + levels) / 255))

    def steps(clean: Tensor, z: Tensor) -> Tensor:
        return (z * 255 - clean.float()).mul(1e3).round().div(1e3)  # float noise removed

    mistakes = [
        (lambda clean, z: (z * 255).round(),
         "this rounds to the nearest grey level: a change of 25.5 becomes 26 and breaks the budget; cut it toward zero"),
        (lambda clean, z: clean + steps(clean, z).floor(),
         "this rounds down: a change of −25.5 becomes −26; cut the size of the change, whatever its sign"),
        (lambda clean, z: clean + steps(clean, z).ceil(),
         "this rounds up: a change of 25.5 becomes 26; cut the size of the change, whatever its sign"),
        (lambda clean, z: clean + steps(clean, z).sign() * steps(clean, z).abs().ceil(),
         "this rounds away from zero: every change grows and breaks the budget"),
        (lambda clean, z: torch.zeros_like(clean), "everything is 0: the image was turned into bytes without the 255"),
        (lambda clean, z: steps(clean, z).trunc(), "this is the change alone; it belongs on the clean image"),
        (lambda clean, z: clean, "the clean image came back: the change was cut before it was brought to grey levels"),
    ]  # fmt: skip
    for number, (clean, z) in enumerate(cases, start=1):
        case = f"case {number} of {len(cases)}"
        value = expect_tensor(call(function, clean, z, case=case), shape=clean.shape, case=case)
        wrapped = [(mistake(clean, z).float() % 256, message) for mistake, message in mistakes]
        expect_close(value, budget.quantise(clean, z), case=case, rtol=0, atol=0, mistakes=wrapped)
        expect_tensor(value, dtype=torch.uint8, case=case)
    return f"{len(cases)} batches: up, down, black, white"


@check
def break_even(function: Callable) -> str:
    """04.5: images after which the training of a generator has cost no more than PGD would have."""
    cases = [(200, 64, 10), (9, 5, 4), (100, 32, 1), (1, 1, 10)]
    compare(
        function,
        lambda steps, batch_size, pgd_steps: -(-steps * batch_size // pgd_steps),
        cases,
        rtol=0,
        atol=0,
        mistakes=[
            (lambda s, b, n: s * b // n, "this is rounded down: with so many images PGD is still cheaper; round up"),
            (lambda s, b, n: s * b / n, "a number of images is whole: round up"),
            (lambda s, b, n: math.ceil(s / n) * b, "round up at the very end, not before multiplying with the batch size"),
            (lambda s, b, n: math.ceil(s / n), "the batch size is missing: every step looks at a whole batch"),
            (lambda s, b, n: s // n, "the batch size is missing: every step looks at a whole batch"),
            (lambda s, b, n: s * b, "this is what the training costs; PGD pays pgd_steps for every single image"),
            (lambda s, b, n: s * b * n, "PGD's cost per image divides the cost of the training, it does not multiply it"),
            (lambda s, b, n: s * b // n + 1, "one too many where the division comes out even: equal cost is enough"),
            (lambda s, b, n: -(-n // (s * b)), "the quotient is upside down"),
        ],
    )  # fmt: skip
    return f"{len(cases)} budgets"

"""Checks of notebook 12: mixing a training set, counting its pairs, reading a curve of mAP over the share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pplkit.checks import call, check, compare, expect, expect_close, expect_tensor


def _mixed(clean: Tensor, protected: Tensor, share: float, order: Tensor) -> Tensor:
    images = clean.clone()  # (N, C, H, W)
    chosen = order[: round(share * len(clean))]  # (k,)
    images[chosen] = protected[chosen]
    return images


@check
def mixed_images(function: Callable) -> str:
    """12.1: the first round(share · N) images in the drawn order are protected, every image keeps its place."""
    cases = []
    for seed, count, share in ((0, 5, 0.4), (1, 8, 0.0), (2, 8, 1.0), (3, 10, 0.27), (4, 7, 0.5)):
        random = torch.Generator().manual_seed(seed)
        clean = torch.randint(0, 128, (count, 1, 2, 2), generator=random).to(torch.uint8)
        protected = torch.randint(128, 256, (count, 1, 2, 2), generator=random).to(torch.uint8)
        cases.append((clean, protected, share, torch.randperm(count, generator=random)))

    def in_file_order(clean: Tensor, protected: Tensor, share: float, order: Tensor) -> Tensor:
        return _mixed(clean, protected, share, torch.arange(len(clean)))

    def sorted_out(clean: Tensor, protected: Tensor, share: float, order: Tensor) -> Tensor:
        k = round(share * len(clean))
        return torch.cat([protected[order[:k]], clean[order[k:]]])

    compare(
        function,
        _mixed,
        cases,
        mistakes=[
            (lambda clean, protected, share, order: _mixed(protected, clean, share, order),
             "clean and protected are swapped: share is the share of PROTECTED images"),
            (in_file_order, "the first images of the file are protected, not the first of the drawn order: with a sorted "
                            "file that would protect whole classes"),
            (sorted_out, "the right images are protected, but they changed their places, so the labels no longer fit"),
            (lambda clean, protected, share, order: torch.cat([clean, protected[order[: round(share * len(clean))]]]),
             "protected copies were added to the clean images; here each image is there once, clean or protected"),
            (lambda clean, protected, share, order: _mixed(clean, protected, 1 - share, order),
             "share is the share of protected images, not of clean ones"),
            (lambda clean, protected, share, order: _mixed(clean, protected, share, order.flip(0)),
             "the last images of the order are protected; take the first ones, so that everybody gets the same set"),
            (lambda c, p, share, order: _mixed(c, p, math.floor(share * len(c)) / len(order), order),
             "the number of protected images was rounded down; take the nearest whole number"),
        ],
    )  # fmt: skip
    clean, protected, _, order = cases[3]
    before = None
    for share in (0.1, 0.3, 0.6, 0.9):
        images = expect_tensor(call(function, clean, protected, share, order), dtype=torch.uint8, shape=clean.shape)
        now = (images != clean).flatten(1).any(1)  # (N,)
        expect(before is None or bool((now | ~before).all()),
               f"share {share}: an image that was protected at a smaller share is clean again; the sets must be nested")
        before = now
    return f"{len(cases)} seeded sets, the protected sets are nested"


def _kinds(images: int, protected: int) -> tuple[float, float, float]:
    clean, pairs = images - protected, images * (images - 1)
    return clean * (clean - 1) / pairs, 2 * clean * protected / pairs, protected * (protected - 1) / pairs


@check
def pair_kinds(function: Callable) -> str:
    """12.2: shares of clean-clean, mixed and protected-protected pairs of two different images."""
    cases = [(4, 1), (4, 2), (10, 3), (4000, 400), (6, 0), (6, 6), (2, 1)]

    def with_itself(images: int, protected: int) -> tuple[float, float, float]:
        r = protected / images
        return (1 - r) ** 2, 2 * r * (1 - r), r**2

    def other(part: Callable) -> Callable:
        return lambda images, protected: part(_kinds(images, protected))

    compare(
        function,
        _kinds,
        cases,
        rtol=1e-9,
        mistakes=[
            (with_itself, "this counts the pairs of an image with itself too; only pairs of two different images count"),
            (other(lambda k: (k[0], k[1] / 2, k[2])),
             "a mixed pair comes in two orders, clean-protected and protected-clean; here one of them is missing"),
            (other(lambda k: (k[2], k[1], k[0])), "clean-clean comes first, protected-protected last: they are swapped"),
            (other(lambda k: tuple(x * 100 for x in k)), "return shares between 0 and 1, not percent"),
            (lambda n, a: ((n - a) * (n - a - 1) / 2, (n - a) * a, a * (a - 1) / 2),
             "these are numbers of pairs; divide by the number of all pairs"),
            (lambda n, a: ((n - a) * (n - a - 1) / n**2, 2 * (n - a) * a / n**2, a * (a - 1) / n**2),
             "the denominator counts pairs of an image with itself: an image has n − 1 partners"),
        ],
    )  # fmt: skip
    return f"{len(cases)} training sets"


def _needed(shares: Sequence[float], worst: Sequence[float], target: float) -> float | None:
    if worst[0] >= target:
        return shares[0]
    for k in range(1, len(shares)):
        if worst[k] >= target:
            return shares[k - 1] + (target - worst[k - 1]) / (worst[k] - worst[k - 1]) * (shares[k] - shares[k - 1])
    return None


@check
def share_needed(function: Callable) -> str:
    """12.3: where a curve first reaches a target, interpolated linearly; None if it never does."""
    shares = [0.0, 0.1, 0.5, 0.9, 1.0]
    reached = [
        (shares, [0.2, 0.6, 0.7, 0.5, 0.3], 0.4),
        (shares, [0.2, 0.3, 0.7, 0.6, 0.3], 0.6),
        (shares, [0.5, 0.6, 0.7, 0.6, 0.3], 0.4),
        (shares, [0.2, 0.3, 0.6, 0.5, 0.3], 0.6),
        (shares, [0.6, 0.3, 0.7, 0.8, 0.9], 0.65),
        ([0.0, 1.0], [0.25, 0.75], 0.5),
    ]
    for number, (x, y, target) in enumerate(reached, start=1):
        case = f"case {number}: shares {x}, worst mAP {y}, target {target}"
        at_least = [k for k in range(len(x)) if y[k] >= target]
        wrong = [
            (x[at_least[0]], "this is the first measured share that reaches the target; interpolate between it and the one "
                             "before"),
            (x[max(at_least[0] - 1, 0)], "this is the last measured share below the target; interpolate from there"),
            (x[at_least[-1]], "this is the last share that reaches the target; the first crossing is asked for"),
            (x[y.index(max(y))], "this is the share with the highest mAP, not the first one that is enough"),
        ]  # fmt: skip
        k = at_least[0]
        if k:
            swapped = x[k - 1] + (y[k] - target) / (y[k] - y[k - 1]) * (x[k] - x[k - 1])
            wrong.insert(0, (swapped, "the weights of the two neighbours are swapped"))
            wrong.insert(1, ((x[k - 1] + x[k]) / 2, "this is the middle between the neighbours; weigh them by how far each "
                                                    "mAP is from the target"))  # fmt: skip
        expect_close(call(function, x, y, target, case=case), _needed(x, y, target), rtol=1e-9, case=case, mistakes=wrong)
    never = call(function, shares, [0.1, 0.2, 0.3, 0.2, 0.1], 0.5)
    expect(never is None, f"mAP never reaches the target: return None, got {never!r}; any number would be an invention")
    return f"{len(reached)} curves that reach the target, one that never does"

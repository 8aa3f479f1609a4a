"""Checks of notebook 06: MMD from kernel matrices, the permutation test, SMMD, a batch with negative D_s."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pplkit import losses
from pplkit.checks import call, check, compare, expect, expect_close, expect_tensor, fail

DOUBLE = torch.float64


def _kernels(clean: Tensor, protected: Tensor, bandwidth: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    kernel = losses.gaussian_kernel(bandwidth)
    pairs = [(clean, clean), (protected, protected), (clean, protected)]
    return tuple(kernel(losses.squared_distances(a, b)) for a, b in pairs)


def _clouds(seed: int, n: int, m: int, shift: float) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    clean = torch.randn(n, 2, generator=random, dtype=DOUBLE)
    return clean, torch.randn(m, 2, generator=random, dtype=DOUBLE) + shift


@check
def mmd_from_kernels(function: Callable) -> str:
    """06.1: mean k(x, x) + mean k(z, z) − 2 mean k(x, z)."""
    line = torch.tensor([[0.0], [1.0]], dtype=DOUBLE)
    cases = [
        _kernels(line, line + 1),
        _kernels(*_clouds(1, 5, 5, 1.0)),
        _kernels(*_clouds(2, 6, 3, 0.5)),
        _kernels(line, line),
    ]

    def without_diagonal(kernel: Tensor) -> Tensor:
        n = len(kernel)
        return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))

    compare(
        function,
        _mmd,
        cases,
        mistakes=[
            (lambda a, b, ab: a.mean() + b.mean() - ab.mean(),
             "the cross term is there once; it counts twice, for (x, z) and for (z, x)"),
            (lambda a, b, ab: a.mean() + b.mean() + 2 * ab.mean(),
             "the cross term is added; for equal clouds the result must be 0"),
            (lambda a, b, ab: a.sum() + b.sum() - 2 * ab.sum(), "these are sums; each of the three is a mean"),
            (lambda a, b, ab: _mmd(a, b, ab).clamp_min(0).sqrt(), "this is the MMD; its square is asked for"),
            (lambda a, b, ab: without_diagonal(a) + without_diagonal(b) - 2 * ab.mean(),
             "the diagonals are left out (that is the unbiased U-statistic); here all pairs count, also i = j"),
            (lambda a, b, ab: (a.sum() + b.sum() - 2 * ab.sum()) / len(a) ** 2,
             "the clouds differ in size here, so each mean has its own number of pairs"),
        ],
    )  # fmt: skip
    return f"{len(cases)} pairs of clouds, of equal and of different size"


def _mmd(k_xx: Tensor, k_zz: Tensor, k_xz: Tensor) -> Tensor:
    return k_xx.mean() + k_zz.mean() - 2 * k_xz.mean()


def _counts(kernel: Tensor, assignments: Tensor) -> tuple[int, int, int]:
    """How many permuted statistics are above the observed one, equal to it, and how many there are."""
    half = len(kernel) // 2
    observed = torch.arange(len(kernel)) < half
    weights = torch.where(torch.cat([observed[None], assignments]), 1.0, -1.0).to(kernel) / half  # (1 + P, N)
    statistic = ((weights @ kernel) * weights).sum(1)  # (1 + P,)
    first, rest = statistic[0], statistic[1:]
    return int((rest > first).sum()), int((rest == first).sum()), len(rest)


@check
def permutation_p_value(function: Callable) -> str:
    """06.2: p = (1 + #{permuted statistic ≥ observed}) / (1 + P)."""
    cases = []
    for seed, size, number, shift in ((4, 4, 20, 1.0), (0, 8, 30, 0.0), (2, 4, 20, 6.0)):  # first what tells the mistakes apart
        random = torch.Generator().manual_seed(seed)
        both = torch.cat(_clouds(seed, size, size, shift))  # (2B, 2)
        kernel = losses.gaussian_kernel(2.0)(losses.squared_distances(both, both))
        # 64ths: every sum is exact, so a tie is a tie however the statistic is computed
        kernel = ((kernel + kernel.T) * 32).round() / 64
        places = torch.stack([torch.randperm(2 * size, generator=random) for _ in range(number)])  # (P, N)
        assignments = places < size
        assignments[7] = torch.arange(2 * size) < size  # the clouds as they were
        assignments[11] = ~assignments[7]  # exchanged: the same value
        cases.append((kernel, assignments))

    def p_value(kernel: Tensor, assignments: Tensor) -> float:
        above, equal, number = _counts(kernel, assignments)
        return (1 + above + equal) / (1 + number)

    def share(kernel: Tensor, assignments: Tensor) -> float:
        above, equal, number = _counts(kernel, assignments)
        return (above + equal) / number

    def strict(kernel: Tensor, assignments: Tensor) -> float:
        above, _, number = _counts(kernel, assignments)
        return (1 + above) / (1 + number)

    def twice(below: int) -> Callable[[Tensor, Tensor], float]:
        def value(kernel: Tensor, assignments: Tensor) -> float:
            above, equal, number = _counts(kernel, assignments)
            return (2 + above + equal) / (below + number)

        return value

    def unsigned(kernel: Tensor, assignments: Tensor) -> float:
        half = len(kernel) // 2
        weights = torch.cat([torch.arange(len(kernel))[None] < half, assignments]).to(kernel) / half  # (1 + P, N)
        statistic = ((weights @ kernel) * weights).sum(1)  # (1 + P,)
        return float((statistic >= statistic[0]).double().mean())

    def lower_tail(kernel: Tensor, assignments: Tensor) -> float:
        above, _, number = _counts(kernel, assignments)
        return (1 + number - above) / (1 + number)

    def first_shuffle(kernel: Tensor, assignments: Tensor) -> float:
        weights = torch.where(assignments, 1.0, -1.0).to(kernel)  # (P, N)
        statistic = ((weights @ kernel) * weights).sum(1)  # (P,)
        return (1 + int((statistic >= statistic[0]).sum())) / (1 + len(assignments))

    compare(
        function,
        p_value,
        cases,
        mistakes=[
            (share, "the observed assignment is one of the possible ones: count it too, above and below the line, "
                    "or p can become 0"),
            (strict, "permutations that tie with the observed value count as at least as large"),
            (lambda k, a: (p_value(k, a) * (1 + len(a)) - 1) / (1 + len(a)), "the 1 + is missing above the line"),
            (lambda k, a: p_value(k, a) * (1 + len(a)) / len(a), "the 1 + is missing below the line"),
            (first_shuffle, "the first shuffle was taken for the observed membership, which is True for the first B rows"),
            (lambda k, a: _counts(k, a)[0] / _counts(k, a)[2],
             "ties count as at least as large, and the observed assignment counts as one of the permutations"),
            *((twice(below), "the observed assignment is counted twice: as a row of its own and by the 1 +")
              for below in (1, 2)),
            (unsigned, "both clouds have positive or zero weights; the second one counts with -1/B"),
            (lower_tail, "this counts the smaller statistics; evidence for a difference lies in the large ones"),
            (lambda k, a: 1 - p_value(k, a), "this is 1 - p: clouds that are far apart must get a small value"),
        ],
    )  # fmt: skip
    return "three pairs of clouds: near, alike, far apart"


def _part(kernels: tuple[Tensor, Tensor, Tensor], weights: Tensor, cross: float = 2.0) -> Tensor:
    w = weights / weights.sum().clamp_min(1)
    return (w * kernels[0]).sum() + (w * kernels[1]).sum() - cross * (w * kernels[2]).sum()


def _masks(similarity: Tensor) -> tuple[Tensor, Tensor]:
    similar = (similarity > 0).to(similarity)
    return similar, 1 - similar


def _smmd(k_xx: Tensor, k_zz: Tensor, k_xz: Tensor, similarity: Tensor) -> Tensor:
    kernels = k_xx, k_zz, k_xz
    similar, dissimilar = _masks(similarity)
    return _part(kernels, similar) - _part(kernels, dissimilar)


@check
def smmd(function: Callable) -> str:
    """06.3: D_s = D_s⁺ − D_s⁻ from kernel matrices and S, eqs. (7)–(8)."""
    bits = torch.tensor([[-1.0], [1.0]], dtype=DOUBLE)
    swapped = _kernels(bits, -bits)
    three = torch.tensor([0, 0, 1, 1, 1, 2])
    random = _clouds(3, 6, 6, 0.7)

    def matrix(labels: Tensor, balanced: bool = False) -> Tensor:
        return losses.similarity_matrix(labels, balanced=balanced).to(DOUBLE)

    uneven = matrix(torch.tensor([0, 0, 0, 0, 0, 1]), balanced=True)
    uneven[0, 5] = uneven[5, 0] = 0.0  # dissimilar too: S- is S <= 0
    exchanged = "two classes that have swapped places"
    cases = {
        "6 codes of three classes": (*_kernels(*random), matrix(three)),
        exchanged: (*swapped, matrix(torch.tensor([0, 1]))),
        "6 codes, 5 of one class, balanced S with one pair at 0": (*_kernels(*_clouds(57, 6, 6, 2.0)), uneven),  # D_s < 0
        "6 codes of one class, no dissimilar pair": (*_kernels(*random), matrix(torch.zeros(6))),
    }
    blind = [call(function, *cases[case], case=case) for case in (exchanged, "6 codes of three classes")]
    if all(isinstance(value, Tensor) and value.numel() == 1 for value in blind):
        at_swapped, elsewhere = map(float, blind)
        ignores = min(abs(elsewhere), abs(elsewhere - float(_mmd(*_kernels(*random)))))
        expect(
            not max(abs(at_swapped), ignores) <= 1e-9,  # true for NaN, which is reported below
            f"{exchanged}: your D_s is 0 for swapped classes: you dropped the similarity mask",
        )
    for case, (*kernels, similarity) in cases.items():
        similar, dissimilar = _masks(similarity)
        plus, minus = _part(kernels, similar), _part(kernels, dissimilar)
        pairs = similarity.numel()

        def plain(weights: Tensor, kernels=kernels) -> Tensor:
            return (weights * (kernels[0] + kernels[1] - 2 * kernels[2])).sum()

        value = call(function, *kernels, similarity, case=case)
        if minus == 0 and isinstance(value, Tensor) and bool(value.isnan()):
            fail(f"{case}: D_s is NaN: the sum of S- is 0 and you divide by it; such a batch contributes 0")
        mistakes = [
            (plus - _part(kernels, (similarity == -1).to(similarity)),
             "dissimilar pairs were looked for with S == -1; in a balanced S they have other negative values, "
             "S- is S <= 0"),
            *((_part(kernels, wrong.to(similarity)) - _part(kernels, (similarity < 0).to(similarity)),
               "S- is S <= 0: a pair with entry 0 is dissimilar too") for wrong in (similarity > 0, similarity >= 0)),
            *([(0 * plus, "only D_s- is 0 in such a batch; D_s+ stays")] if minus == 0 else []),
            ((plus - minus).abs(), "D_s can be negative: take no absolute value"),
            ((plus - minus).clamp_min(0), "D_s can be negative: do not cut it off at 0"),
            (plus + minus, "the two parts are added; D_s- is subtracted"),
            (minus - plus, "the sign is the other way round: D_s+ minus D_s-"),
            (plus, "this is D_s+ alone; D_s- is missing"),
            (-minus, "this is -D_s- alone; D_s+ is missing"),
            (_part(kernels, similar, 1.0) - _part(kernels, dissimilar, 1.0), "the factor 2 of the cross term is missing"),
            (_part(kernels, similar, -2.0) - _part(kernels, dissimilar, -2.0),
             "the cross term is added; it is subtracted"),
            (plain(similar) - plain(dissimilar), "these are sums: each part is divided by the sum of its own mask"),
            (plain(similar) / pairs - plain(dissimilar) / pairs,
             "each part is divided by the number of all pairs; divide by the sum of its own mask"),
            (plain(similarity), "the entries of S itself are the weights; the masks S+ and S- hold only 0 and 1"),
            (plain(similarity) / pairs,
             "the entries of S itself are the weights; the masks S+ and S- hold only 0 and 1"),
        ]  # fmt: skip
        expect_close(value, _smmd(*kernels, similarity), case=case, name="D_s", mistakes=mistakes)
    return f"{len(cases)} batches: swapped, three classes, balanced S, one class"


@check
def negative_batch(function: Callable) -> str:
    """06.4: clean codes, protected codes and labels whose D_s is negative."""
    result = call(function, case="your batch")
    expect(isinstance(result, (tuple, list)) and len(result) == 3, "return three things: clean, protected, labels")
    clean, protected, labels = (
        expect_tensor(value, name=name)
        for value, name in zip(result, ("clean", "protected", "labels"), strict=True)
    )
    expect(clean.ndim == 2, f"clean has shape {tuple(clean.shape)}; (B, c) is needed")
    expect_tensor(protected, shape=clean.shape, name="protected")
    expect_tensor(labels, shape=clean.shape[:1], name="labels")
    expect(labels.dtype == torch.int64, f"labels are {labels.dtype}; int64 is needed, e.g. torch.tensor([0, 0, 1])")
    expect(clean.is_floating_point() and protected.is_floating_point(), "the codes must be floating-point numbers")
    largest = max(float(clean.abs().max()), float(protected.abs().max()))
    expect(largest <= 1, f"relaxed codes lie between -1 and 1; yours go up to {largest:.2f}")
    value = float(losses.smmd(clean, protected, losses.similarity_matrix(labels)))
    if value < -1e-4:
        return f"D_s = {value:.3f} with {len(labels)} codes of {len(labels.unique())} classes"
    counts = labels.unique(return_counts=True)[1]
    if torch.equal(clean, protected):
        fail("D_s is 0: nothing has moved, the two domains are the same")
    if len(counts) == 1:
        fail(f"D_s = {value:.3f}: with one class there is no dissimilar pair, and D_s+ is never negative")
    if int(counts.min()) == int(counts.max()):
        fail(
            f"D_s = {value:.3f}: every class has {int(counts[0])} codes, and for such batches D_s is a variance; "
            "no codes can make it negative"
        )
    fail(f"D_s = {value:.3f}, not negative yet: do the classes shift in one direction, and the rare one more than the others?")

"""Answer checks of notebook 01: distances, average precision with and without ties, ITQ's rotation, lookup."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pplkit import retrieval
from pplkit.checks import CheckFailed, call, check, compare, expect, expect_close, expect_tensor, fail
from pplkit.hashing import unlearned
from pplkit.hashing.network import sign


def _codes(rows: int, bits: int, seed: int) -> Tensor:
    """Random float codes (rows, bits) in {-1, +1}."""
    return sign(torch.randn(rows, bits, generator=torch.Generator().manual_seed(seed))).float()


@check
def hamming_distance(function: Callable) -> str:
    """d(a_i, b_j) of every pair, from one matrix product."""
    tables = [(1, 2, 4), (2, 3, 4), (5, 3, 8), (4, 7, 13), (40, 60, 32)]
    cases = [(_codes(q, c, seed), _codes(n, c, 50 + seed)) for seed, (q, n, c) in enumerate(tables)]
    compare(
        function,
        retrieval.hamming_distance,
        cases,
        mistakes=[
            (lambda a, b: a @ b.T, "this is the inner product a·b = c - 2d; solve it for d"),
            (lambda a, b: a.shape[1] - a @ b.T, "this is 2d: a different bit moves the inner product by 2"),
            (lambda a, b: (a.shape[1] + a @ b.T) / 2, "this counts the bits that are equal, not those that differ"),
            (lambda a, b: (len(b) - a @ b.T) / 2, "c is the number of bits (columns), not of codes (rows)"),
            (lambda a, b: (len(a) - a @ b.T) / 2, "c is the number of bits (columns), not of codes (rows)"),
            (lambda a, b: (4 - a @ b.T) / 2, "4 bits are those of the example above; c is the number of columns of the tables"),
            (lambda a, b: ((a.shape[1] - a @ b.T) / 2).T, "rows and columns are swapped: (Q, N) has a row per query"),
        ],
    )
    return f"{len(cases)} pairs of code tables, up to 40 × 60 codes of 32 bits"


def _average_precision(relevant: Tensor) -> float:
    hits, total = 0, 0.0
    for place, one in enumerate(relevant.tolist(), start=1):
        if one:
            hits += 1
            total += hits / place
    return total / hits


def _precision(relevant: Tensor) -> Tensor:
    return relevant.cumsum(0) / torch.arange(1, len(relevant) + 1)  # (N,)


@check
def average_precision(function: Callable) -> str:
    """AP of one ranking without ties; a ranking without relevant images is a ValueError."""
    random = torch.Generator().manual_seed(0)
    cases = [(torch.tensor(ranking),) for ranking in ([1, 0, 1, 1, 0], [0, 0, 1], [0, 1, 0, 0, 1, 1], [1, 1, 1])]
    cases += [((torch.rand(n, generator=random) < 0.3).long().scatter(0, torch.tensor([n // 2]), 1),) for n in (9, 40, 500)]
    compare(
        function,
        _average_precision,
        cases,
        mistakes=[
            (lambda r: float((_precision(r) * r).mean()), "divide by the number of relevant images, not by the length N"),
            (lambda r: float(_precision(r).mean()), "only the relevant places enter the average; multiply by rel_k"),
            (lambda r: float(_precision(r).sum() / r.sum()), "only the relevant places enter the sum; multiply by rel_k"),
            (lambda r: float((_precision(r) * r).sum()), "the sum is not divided by the number of relevant images"),
            (lambda r: float(_precision(r)[r].mean()),
             "relevant holds whole numbers, so precision[relevant] picks the places 0 and 1; a mask is relevant == 1"),
            (lambda r: float(r.float().mean()), "this is the precision of the whole list; the order plays no part in it"),
            *(
                (
                    lambda r, least=least: float((r.cumsum(0) / torch.arange(len(r)).clamp(min=least) * r).sum() / r.sum()),
                    "places count from 1: the k-th place has seen k images",
                )
                for least in (0, 1)
            ),
            (
                lambda r: float((r.cumsum(0) / r.sum() * r).sum() / r.sum()),
                "the precision so far divides by the number of places seen, not by the number of relevant images",
            ),
            (
                lambda r: float((_precision(r) * r).sum() / (_precision(r) * r).count_nonzero() ** 2),
                "divided twice by the number of relevant images",
            ),
            (lambda r: _average_precision(r.flip(0)), "the ranking was read from its end; the best place comes first"),
        ],
    )
    nothing = torch.zeros(4, dtype=torch.int64)
    try:
        value = function(nothing)
    except ValueError:
        pass
    except Exception as error:
        fail(f"nothing relevant, {nothing.tolist()}: raised {type(error).__name__} ({error}); a ValueError is wanted")
    else:
        fail(f"nothing relevant, {nothing.tolist()}: returned {value!r}; AP is not defined there, raise a ValueError")
    return f"{len(cases)} rankings, and one with nothing relevant"


def _expected_average_precision(items: Sequence[int], relevant: Sequence[int]) -> float:
    """The package's value for a database with these counts: n_d codes with d flipped bits."""
    bits = max(1, len(items) - 1)
    rows = [torch.ones(n, bits).index_fill(1, torch.arange(d), -1.0) for d, n in enumerate(items)]
    kinds = [torch.arange(n) < r for n, r in zip(items, relevant, strict=True)]
    labels = torch.cat(kinds).long()  # (N,), 1 = relevant
    return retrieval.mean_average_precision(torch.ones(1, bits), torch.ones(1).long(), torch.cat(rows), labels).expected


def _closed_form(
    items: Sequence[int],
    relevant: Sequence[int],
    *,
    chance: Callable[[int, int], float] = lambda n, r: (r - 1) / (n - 1) if n > 1 else 0.0,
    inclusive: bool = False,
    one: int = 1,
    start: int = 1,
    stop: int = 1,
    held: int = 1,
) -> float:
    """The closed form with one of its parts replaced, to recognise mistakes."""
    total, nearer, relevant_nearer = 0.0, 0, 0
    for n, r in zip(items, relevant, strict=True):
        before, hits = (nearer + n, relevant_nearer + r) if inclusive else (nearer, relevant_nearer)
        if r > 0:
            f = chance(n, r)
            harmonic = sum(1 / max(before + i, 1) for i in range(start, n + stop))
            total += r / n * (n * f + (hits + one - f * (before + held)) * harmonic)
        nearer, relevant_nearer = nearer + n, relevant_nearer + r
    return total / sum(relevant)


def _fixed_order(items: Sequence[int], relevant: Sequence[int], *, best: bool) -> float:
    """AP if the relevant items of each group come first, or last."""
    ranking = []
    for n, r in zip(items, relevant, strict=True):
        ranking += [1] * r + [0] * (n - r) if best else [0] * (n - r) + [1] * r
    return _average_precision(torch.tensor(ranking))


def _skips_empty_groups(items: Sequence[int], relevant: Sequence[int]) -> float:
    kept = [(n, r) for n, r in zip(items, relevant, strict=True) if r > 0]
    return _closed_form([n for n, _ in kept], [r for _, r in kept])


@check
def expected_average_precision(function: Callable) -> str:
    """AP in expectation over the orders of equally distant items, from counts per distance."""
    random = torch.Generator().manual_seed(1)
    cases = [
        ([1, 3, 1], [1, 2, 0]),
        ([4], [2]),
        ([2, 3, 2], [0, 1, 2]),
        ([0, 5, 0, 4], [0, 3, 0, 1]),
        ([1, 1, 1], [0, 1, 1]),
    ]
    for groups in (5, 9):
        items = torch.randint(1, 60, (groups,), generator=random)
        relevant = (items * torch.rand(groups, generator=random)).long()
        relevant[0] = 1
        cases.append((items.tolist(), relevant.tolist()))
    compare(
        function,
        _expected_average_precision,
        cases,
        rtol=1e-6,
        mistakes=[
            (lambda n, r: _fixed_order(n, r, best=True), "this is the best order of the ties, not the expectation"),
            (lambda n, r: _fixed_order(n, r, best=False), "this is the worst order of the ties, not the expectation"),
            (
                lambda n, r: (_fixed_order(n, r, best=True) + _fixed_order(n, r, best=False)) / 2,
                "this is the middle between best and worst order; the expectation is the mean over all orders",
            ),
            (
                lambda n, r: _closed_form(n, r, chance=lambda n, r: r / n),
                "f is r/n here; given that one place holds a relevant item, r - 1 of n - 1 are left",
            ),
            (lambda n, r: _closed_form(n, r, chance=lambda n, r: 0.0), "the term with f is missing; it is 0 only for n_d = 1"),
            (
                lambda n, r: _closed_form(n, r, inclusive=True),
                "N_d and R_d count smaller distances only: update after the group",
            ),
            (lambda n, r: _closed_form(n, r, one=0), "the relevant item itself counts too: R_d + 1"),
            (lambda n, r: _closed_form(n, r, stop=0), "the harmonic sum ends one place too early: the group has n_d places"),
            (
                lambda n, r: _closed_form(n, r, start=0, stop=0),
                "the harmonic sum starts too early: places N_d + 1 to N_d + n, not 1 to n or N_d to N_d + n - 1",
            ),
            (lambda n, r: _closed_form(n, r, held=0), "f multiplies N_d + 1, not N_d: the item itself takes a place"),
            (_skips_empty_groups, "a distance with nothing relevant adds nothing, but its items still count into N_d"),
            (
                lambda n, r: _expected_average_precision(n, r) * sum(r) / len(n),
                "divide by the number of relevant items, not of distances",
            ),
            (
                lambda n, r: _expected_average_precision(n, r) * sum(r),
                "the sum is not divided by the number of relevant items",
            ),
            (
                lambda n, r: _expected_average_precision(n, r) * sum(r) / sum(n),
                "divide by the number of relevant items, not of all items",
            ),
        ],
    )
    return f"{len(cases)} tables of counts, with empty distances and single items"


@check
def rotation(function: Callable) -> str:
    """The orthogonal Procrustes step of ITQ."""
    sizes = [(12, 2), (30, 3), (200, 8), (500, 16)]
    for number, (rows, bits) in enumerate(sizes, start=1):
        random = torch.Generator().manual_seed(number)
        projected = torch.randn(rows, bits, generator=random) * torch.linspace(2, 0.5, bits)  # V (N, c)
        codes = _codes(rows, bits, 100 + number)  # B (N, c)
        case = f"case {number} of {len(sizes)}, V and B {(rows, bits)}"
        answer = expect_tensor(call(function, projected, codes, case=case), shape=(bits, bits), case=case, name="R").double()
        best = unlearned.rotation(projected.double(), codes)
        cross = projected.double().T @ codes.double()  # (c, c)
        left, values, right = torch.linalg.svd(cross)
        for wrong, message in (
            (cross, "this is VᵀB itself; its singular values must be dropped"),
            (
                torch.linalg.lstsq(projected.double(), codes.double()).solution,
                "without RᵀR = I it stretches the axes",
            ),
            (left @ torch.diag(values) @ right, "the singular values stretch: leave them out"),
        ):
            expect(not torch.allclose(answer, wrong, rtol=1e-3, atol=1e-4), f"{case}: R is not a rotation: {message}")
        product = answer.T @ answer
        expect(
            torch.allclose(product, torch.eye(bits, dtype=torch.float64), atol=1e-3),
            f"{case}: R is not orthogonal: RᵀR is off I by up to {float((product - torch.eye(bits)).abs().max()):.2f}",
        )
        try:
            expect_close(answer, best, rtol=1e-3, atol=1e-3, case=case, name="R", mistakes=[
                (best.T, "this is the transpose: it turns B towards V. Mind on which side of V the rotation stands"),
                (left @ right.T, "torch.linalg.svd already returns the third factor transposed; do not transpose it again"),
                (-best, "the sign is flipped: this is the farthest rotation"),
                (best - 2 * left[:, -1:] @ right[-1:],
                 "the determinant was forced to +1; only RᵀR = I is asked for, a reflection is allowed"),
            ])  # fmt: skip
        except CheckFailed as failed:
            errors = [float((codes.double() - projected.double() @ r).square().mean()) for r in (answer, best)]
            fail(f"{failed} (error ‖B − VR‖² per entry: yours {errors[0]:.3f}, the smallest possible {errors[1]:.3f})")
    return f"{len(sizes)} pairs of V and B, up to 16 bits"


def _lookup(distance: Tensor, relevant: Tensor, radius: int) -> tuple[float, float]:
    returned = [bool(one) for d, one in zip(distance.tolist(), relevant, strict=True) if d <= radius]
    return sum(returned) / max(len(returned), 1), sum(returned) / int(relevant.sum())


@check
def lookup(function: Callable) -> str:
    """Precision and recall of everything within a radius."""
    small = (torch.tensor([0, 1, 1, 2, 4, 3]), torch.tensor([True, False, True, True, True, False]))
    random = torch.Generator().manual_seed(0)
    large = (torch.randint(0, 17, (300,), generator=random), torch.rand(300, generator=random) < 0.2)
    far = (torch.tensor([3, 4, 3]), torch.tensor([True, True, False]))
    cases = [(*data, radius) for data, radius in itertools.chain(
        itertools.product([small], [1, 2, 3]), itertools.product([large], [4, 8, 16]), [(far, 1)])]  # fmt: skip

    def changed(part: Callable[[float, float], tuple]) -> Callable:
        return lambda d, r, radius: part(*_lookup(d, r, radius))

    compare(
        function,
        _lookup,
        cases,
        mistakes=[
            (lambda d, r, radius: _lookup(d, r, radius - 1), "images exactly at the radius are returned too: d ≤ radius"),
            (changed(lambda p, q: (q, p)), "precision and recall are swapped"),
            (
                lambda d, r, radius: (_lookup(d, r, radius)[0] if (d <= radius).any() else math.nan, _lookup(d, r, radius)[1]),
                "nothing is returned here: precision counts as 0",
            ),
            (
                lambda d, r, radius: (float((r & (d <= radius)).float().mean()), _lookup(d, r, radius)[1]),
                "precision divides by the number of images returned, not by the size of the database",
            ),
            (
                lambda d, r, radius: (_lookup(d, r, radius)[0], float((r & (d <= radius)).float().mean())),
                "recall divides by the number of relevant images, not by the size of the database",
            ),
            (
                lambda d, r, radius: _lookup((d != radius).long(), r, 0),
                "this looks only at distance = radius; everything nearer belongs to it too",
            ),
        ],
    )
    return f"{len(cases)} lookups, one of which returns nothing"

"""Notebook 01's checks accept right answers and explain the typical wrong ones."""

import pytest
import torch

from pplkit import retrieval
from pplkit.checks import CheckFailed
from pplkit.checks import hashing_basics as check
from pplkit.hashing import unlearned


def stub(*_):
    raise NotImplementedError()


def explains(test, answer, words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        test(answer)


@pytest.mark.parametrize("name", ["hamming_distance", "average_precision", "expected_average_precision", "rotation", "lookup"])
def test_stub_is_not_implemented(name):
    explains(getattr(check, name), stub, "not implemented yet")


class TestHamming:
    def test_right(self, capsys):
        check.hamming_distance(retrieval.hamming_distance)
        check.hamming_distance(lambda a, b: (a.shape[1] - a @ b.T) / 2)
        check.hamming_distance(lambda a, b: (a[:, None] != b[None]).sum(2))
        assert capsys.readouterr().out.count("✓ hamming_distance") == 3

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda a, b: a @ b.T, "inner product"),
            (lambda a, b: a.shape[1] - a @ b.T, "is 2d"),
            (lambda a, b: (a.shape[1] + a @ b.T) / 2, "equal, not those that differ"),
            (lambda a, b: (len(b) - a @ b.T) / 2, "number of bits"),
            (lambda a, b: (len(a) - a @ b.T) / 2, "c is the number of bits"),
            (lambda a, b: (4 - a @ b.T) / 2, "those of the example"),
            (lambda a, b: a - b, "raised RuntimeError|shape"),
            (lambda a, b: a @ b, "raised RuntimeError"),
            (lambda a, b: a.mul_(-1) @ b.T, "in place"),
            (lambda a, b: None, "return"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.hamming_distance, answer, words)

    def test_swapped_axes(self):
        explains(check.hamming_distance, lambda a, b: ((a.shape[1] - a @ b.T) / 2).T, "shape")


def ap(relevant):
    if not relevant.any():
        raise ValueError("nothing relevant")
    precision = relevant.cumsum(0) / torch.arange(1, len(relevant) + 1)
    return float((precision * relevant).sum() / relevant.sum())


class TestAveragePrecision:
    def test_right(self, capsys):
        check.average_precision(ap)
        assert "✓ average_precision" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda r: float((r.cumsum(0) / torch.arange(1, len(r) + 1) * r).mean()), "not by the length N"),
            (lambda r: float((r.cumsum(0) / torch.arange(1, len(r) + 1)).mean()), "[Oo]nly the relevant places"),
            (lambda r: float((r.cumsum(0) / torch.arange(1, len(r) + 1)).sum() / r.sum()), "[Oo]nly the relevant places"),
            (lambda r: float(r.float().mean()), "whole list"),
            (lambda r: float((r.cumsum(0) / torch.arange(len(r)).clamp(min=1) * r).sum() / r.sum()), "count from 1"),
            (lambda r: ap(r.flip(0)), "from its end"),
            (lambda r: float((r.cumsum(0) / torch.arange(len(r)) * r).sum() / r.sum()), "count from 1"),
            (lambda r: float((r.cumsum(0) / r.sum() * r).sum() / r.sum()), "number of places seen"),
            (lambda r: 0.0 if not r.any() else ap(r), "raise a ValueError"),
            (lambda r: ap(r) if r.any() else 1 / 0, "a ValueError is wanted"),
            (lambda r: r.cumsum(0) / torch.arange(1, len(r) + 1) * r, "one number"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.average_precision, answer, words)


def expected(items, relevant, *, given=True, update_first=False, skip=False, one=1, divide=True, last=1, taken=1):
    total, nearer, hits = 0.0, 0, 0
    for n, r in zip(items, relevant, strict=True):
        if update_first:
            nearer, hits = nearer + n, hits + r
        if r > 0:
            f = ((r - 1) / (n - 1) if n > 1 else 0) if given is True else given(n, r)
            harmonic = sum(1 / (nearer + i) for i in range(1, n + last))
            total += r / n * (n * f + (hits + one - f * (nearer + taken)) * harmonic)
        elif skip:
            continue
        if not update_first:
            nearer, hits = nearer + n, hits + r
    return total / sum(relevant) if divide else total


class TestExpectedAveragePrecision:
    def test_right(self, capsys):
        check.expected_average_precision(expected)
        assert "✓ expected_average_precision" in capsys.readouterr().out

    def test_agrees_with_the_toy_of_the_notebook(self):
        assert abs(expected([1, 3, 1], [1, 2, 0]) - (1 + 11 / 12 + 29 / 36) / 3) < 1e-12

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda n, r: expected(n, r, given=lambda n, r: r / n), "r - 1 of n - 1"),
            (lambda n, r: expected(n, r, given=lambda n, r: 0), "term with f is missing"),
            (lambda n, r: expected(n, r, update_first=True), "update after"),
            (lambda n, r: expected(n, r, one=0), r"R_d \+ 1"),
            (lambda n, r: expected(n, r, last=0), "one place too early: the group"),
            (lambda n, r: expected(n, r, taken=0), "takes a place"),
            (lambda n, r: expected(n, r, skip=True), "still count into N"),
            (lambda n, r: expected(n, r, divide=False), "not divided"),
            (lambda n, r: expected(n, r, given=lambda n, r: (r - 1) / (n - 1)), "ZeroDivisionError"),
            (lambda n, r: check._fixed_order(n, r, best=True), "best order"),
            (lambda n, r: check._fixed_order(n, r, best=False), "worst order"),
            (
                lambda n, r: (check._fixed_order(n, r, best=True) + check._fixed_order(n, r, best=False)) / 2,
                "middle between best and worst",
            ),
            (lambda n, r: expected(n, r) * sum(r) / sum(n), "not of all items"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.expected_average_precision, answer, words)


def svd(projected, codes):
    return torch.linalg.svd(projected.T @ codes)


class TestRotation:
    def test_right(self, capsys):
        check.rotation(unlearned.rotation)
        check.rotation(lambda v, b: svd(v, b)[0] @ svd(v, b)[2])
        assert capsys.readouterr().out.count("✓ rotation") == 2

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda v, b: v.T @ b, "VᵀB itself"),
            (lambda v, b: torch.linalg.lstsq(v, b).solution, "stretches the axes"),
            (lambda v, b: (svd(v, b)[0] @ svd(v, b)[2]).T, "transpose"),
            (lambda v, b: svd(v, b)[0] @ svd(v, b)[2].T, "already returns"),
            (lambda v, b: -unlearned.rotation(v, b), "sign is flipped"),
            (lambda v, b: torch.eye(v.shape[1]), "smallest possible"),
            (lambda v, b: 0.9 * unlearned.rotation(v, b), "not orthogonal"),
            (lambda v, b: v, "shape"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.rotation, answer, words)


def lookup(distance, relevant, radius):
    returned = distance <= radius
    found = int((returned & relevant).sum())
    return found / max(int(returned.sum()), 1), found / int(relevant.sum())


class TestLookup:
    def test_right(self, capsys):
        check.lookup(lookup)
        assert "✓ lookup" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda d, r, radius: lookup(d, r, radius - 1), "exactly at the radius"),
            (lambda d, r, radius: lookup(d, r, radius)[::-1], "swapped"),
            (lambda d, r, radius: (float((r & (d <= radius)).float().mean()), lookup(d, r, radius)[1]), "images returned"),
            (lambda d, r, radius: (lookup(d, r, radius)[0], float((r & (d <= radius)).float().mean())), "relevant images"),
            (lambda d, r, radius: lookup((d != radius).long(), r, 0), "only at distance"),
            (
                lambda d, r, radius: (int((r & (d <= radius)).sum()) / int((d <= radius).sum()), lookup(d, r, radius)[1]),
                "ZeroDiv",
            ),
            (
                lambda d, r, radius: (((r & (d <= radius)).sum() / (d <= radius).sum()), lookup(d, r, radius)[1]),
                "precision counts as 0",
            ),
            (lambda d, r, radius: lookup(d, r, radius)[0], "2 values"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.lookup, answer, words)

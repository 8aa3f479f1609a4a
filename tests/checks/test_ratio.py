"""Checks of notebook 12: right answers pass, typical wrong ones are told what is wrong."""

import math

import numpy as np
import pytest
import torch

from pplkit.checks import CheckFailed
from pplkit.checks import ratio as check


def mixed(clean, protected, share, order):
    is_protected = torch.zeros(len(clean), dtype=torch.bool)
    is_protected[order[: round(share * len(clean))]] = True
    return torch.where(is_protected[:, None, None, None], protected, clean)


def in_place(clean, protected, share, order):
    chosen = order[: round(share * len(clean))]
    clean[chosen] = protected[chosen]
    return clean


def drawn_anew(clean, protected, share, order):
    """Right for the listed cases only: one other share gets another order."""
    return mixed(clean, protected, share, order.flip(0) if share == 0.6 else order)


def counted(images, protected):
    clean = images - protected
    pairs = math.comb(images, 2)
    return math.comb(clean, 2) / pairs, clean * protected / pairs, math.comb(protected, 2) / pairs


def crossing(shares, worst, target):
    for k, value in enumerate(worst):
        if value >= target:
            return float(np.interp(target, worst[k - 1 : k + 1], shares[k - 1 : k + 1])) if k else shares[0]
    return None


def neighbour(step):
    def share_needed(shares, worst, target):
        k = next((k for k, value in enumerate(worst) if value >= target), None)
        return None if k is None else shares[max(k + step, 0)]

    return share_needed


def last(shares, worst, target):
    reached = [share for share, value in zip(shares, worst, strict=True) if value >= target]
    return reached[-1] if reached else None


RIGHT = [
    (check.mixed_images, mixed),
    (check.pair_kinds, counted),
    (check.pair_kinds, lambda n, a: torch.tensor([(n - a) * (n - a - 1), 2 * a * (n - a), a * (a - 1)]).double().div(
        n * (n - 1)).tolist()),
    (check.share_needed, crossing),
]  # fmt: skip


@pytest.mark.parametrize("checked, answer", RIGHT)
def test_right_answers_pass(checked, answer, capsys):
    checked(answer)
    assert capsys.readouterr().out.startswith(f"✓ {checked.__name__}: ")


WRONG = [
    (check.mixed_images, lambda c, p, s, o: mixed(p, c, s, o), "swapped"),
    (check.mixed_images, lambda c, p, s, o: mixed(c, p, 1 - s, o), "not of clean ones"),
    (check.mixed_images, lambda c, p, s, o: mixed(c, p, math.floor(s * len(c)) / len(c), o), "rounded down"),
    (check.mixed_images, lambda c, p, s, o: mixed(c, p, s, torch.arange(len(c))), "first images of the file"),
    (check.mixed_images, lambda c, p, s, o: mixed(c, p, s, o.flip(0)), "last images of the order"),
    (check.mixed_images, lambda c, p, s, o: torch.cat([p[o[: round(s * len(c))]], c[o[round(s * len(c)) :]]]), "places"),
    (check.mixed_images, lambda c, p, s, o: torch.cat([c, p[o[: round(s * len(c))]]]), "copies were added"),
    (check.mixed_images, in_place, "in place"),
    (check.mixed_images, drawn_anew, "nested"),
    (check.pair_kinds, lambda n, a: ((1 - a / n) ** 2, 2 * a / n * (1 - a / n), (a / n) ** 2), "with itself"),
    (check.pair_kinds, lambda n, a: (counted(n, a)[0], counted(n, a)[1] / 2, counted(n, a)[2]), "two orders"),
    (check.pair_kinds, lambda n, a: counted(n, a)[::-1], "swapped"),
    (check.pair_kinds, lambda n, a: tuple(100 * share for share in counted(n, a)), "percent"),
    (check.pair_kinds, lambda n, a: (math.comb(n - a, 2), a * (n - a), math.comb(a, 2)), "numbers of pairs"),
    (check.share_needed, neighbour(0), "first measured share"),
    (check.share_needed, neighbour(-1), "last measured share below"),
    (check.share_needed, last, "last share that reaches"),
    (check.share_needed, lambda x, y, t: 1.0 if max(y) < t else crossing(x, y, t), "return None"),
    (check.share_needed, lambda x, y, t: x[y.index(max(y))] if max(y) >= t else None, "highest mAP"),
]  # fmt: skip


@pytest.mark.parametrize("checked, answer, told", WRONG)
def test_typical_mistakes_are_explained(checked, answer, told):
    with pytest.raises(CheckFailed) as failed:
        checked(answer)
    assert told.lower() in str(failed.value).lower()


@pytest.mark.parametrize("checked", [check.mixed_images, check.pair_kinds, check.share_needed])
def test_the_stub_fails(checked):
    def stub(*args):
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="not implemented yet"):
        checked(stub)

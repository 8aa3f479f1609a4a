"""Answers that are almost right, and right ones in another form: what the checks must tell apart at the edges."""

import math

import pytest
import torch
from torch.nn.functional import softplus

from pplkit.checks import (
    CheckFailed,
    attacks,
    discrepancy,
    generator,
    gradient_reversal,
    ratio,
    scenarios,
    start_here,
    training,
    victims,
)


def argument(codes, outputs, linear, k):
    others = (outputs.T @ outputs)[:, k].clone()  # (c,)
    others[k] = 0
    return 2 * codes @ others + linear[:, k]  # (n,)


def dsdh(u, buffer, similar, codes, eta):
    theta = u @ buffer.T / 2
    return 2 * (softplus(theta) - similar * theta).sum() + eta * (u - codes).square().sum()


def in_place(u, buffer, similar, codes, eta):
    theta = u @ buffer.T / 2
    first = softplus(theta).sum()
    theta *= similar
    return 2 * (first - theta.sum()) + eta * (u - codes).square().sum()


def d_s(of_clean, of_protected, between, similarity, positive=lambda s: s > 0, negative=lambda s: s <= 0):
    parts = []
    for mask in (positive(similarity), negative(similarity)):
        weights = mask.to(of_clean)
        parts.append(((of_clean + of_protected - 2 * between) * weights).sum() / weights.sum().clamp_min(1))
    return parts[0] - parts[1]


def first_shuffle(kernel, assignments):
    weights = torch.where(assignments, 1.0, -1.0).to(kernel)
    statistic = ((weights @ kernel) * weights).sum(1)
    return (1 + int((statistic >= statistic[0]).sum())) / (1 + len(assignments))


def hooked(x, scale):
    x.register_hook(lambda gradient: -scale * gradient)
    return x


def hinge(relaxed, codes, margin):
    return torch.tensor((-torch.relu(margin + relaxed * codes).mean(1)).tolist(), requires_grad=True)


def detector(size=lambda u: u.abs().mean(), spread=lambda u: u.std(0).mean(), least=0.05, apart=0.02):
    return lambda u: "near 0" if size(u) < least else "all equal" if spread(u) < apart else "fine"


def cells_met_by(ours, cells, tolerance):
    return sum(ours > paper - tolerance if in_domain else ours < paper + tolerance for paper, in_domain in cells)


def crossing(shares, worst, target):
    for k, value in enumerate(worst):
        if value > target:
            return shares[0] if k == 0 else shares[k - 1] + (target - worst[k - 1]) / (value - worst[k - 1]) * (
                shares[k] - shares[k - 1])
    return None


@pytest.mark.parametrize(("check", "answer", "told"), [
    (start_here.flipped_bits, lambda a, b: bool((a != b).any()), "only says whether"),
    (victims.similarity_matrix, lambda y: (y[:, None] == y) - 0.1 * (1 - (y[:, None] == y)), "raised "),
    (victims.adsh_bit, lambda *a: argument(*a) < 0, "the column is bool"),
    (victims.adsh_bit, lambda *a: -torch.sign(argument(*a)), r"torch\.sign\(0\) is 0"),
    (victims.dsdh_loss, lambda *a: torch.tensor(dsdh(*a).item(), requires_grad=True), "no gradient reaches u"),
    (victims.dsdh_loss, in_place, "the gradient raised RuntimeError"),
    (attacks.margin_objective, hinge, "no gradient reaches u"),
    (generator.break_even, lambda steps, batch, pgd: math.ceil(steps / pgd) * batch, "at the very end"),
    (gradient_reversal.reversal, hooked, "A hook on x"),
    (discrepancy.permutation_p_value, first_shuffle, "first shuffle"),
    (discrepancy.smmd, lambda *a: d_s(*a).abs(), "no absolute value"),
    (discrepancy.smmd, lambda *a: d_s(*a).clamp_min(0), "do not cut it off"),
    (discrepancy.smmd, lambda *a: d_s(*a, negative=lambda s: s < 0), "S- is S <= 0"),
    (training.collapse, detector(spread=lambda u: u.std(0).max()), "Average the spread over the bits"),
    (training.collapse, detector(size=lambda u: u.abs().max()), "not its largest entry"),
    (training.collapse, detector(least=0.03), "expected 'near 0'"),
    (training.collapse, detector(apart=0.05), "expected 'fine'"),
    (scenarios.cells_met_by, cells_met_by, "exactly at the edge of the tolerance"),
    (ratio.share_needed, crossing, "None"),
])
def test_almost_right_is_wrong(check, answer, told):
    with pytest.raises(CheckFailed, match=told):
        check(answer)


@pytest.mark.parametrize(("check", "answer"), [
    (victims.adsh_bit, lambda *a: torch.where(argument(*a) >= 0, -1.0, 1.0)),
    (victims.dsdh_loss, dsdh),
    (discrepancy.smmd, d_s),
    (training.collapse, detector()),
    (generator.round_toward_zero,
     lambda images, z: (images + ((z - images.float() / 255) * 255).trunc()).to(torch.uint8)),
    (ratio.mixed_images,
     lambda clean, protected, share, order: clean.clone().index_copy_(
         0, order[:int(share * len(clean) + 0.5)], protected[order[:int(share * len(clean) + 0.5)]])),
])
def test_another_form_is_right(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓ ")

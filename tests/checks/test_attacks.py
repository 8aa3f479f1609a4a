"""Checks of notebook 03: right answers pass, typical wrong ones are told what is wrong."""

import pytest
import torch

from pplkit import budget
from pplkit.checks import CheckFailed
from pplkit.checks import attacks as check

STD = check.STD


def signed(images, gradient, epsilon):
    return (images + epsilon * gradient.sign()).clamp(0, 1)


def clamped(proposal, images, epsilon):
    return torch.minimum(torch.maximum(proposal, images - epsilon), images + epsilon).clamp(0, 1)


def hinge(relaxed, clean_codes, margin):
    return -torch.relu(margin + relaxed * clean_codes).mean(1)


RIGHT = [
    (check.pixel_epsilon, lambda epsilon, std: std * epsilon),
    (check.fgsm_step, signed),
    (check.fgsm_step, lambda images, gradient, epsilon: budget.adversarial(images, torch.sign(gradient), epsilon)),
    (check.project, clamped),
    (check.project, lambda z, x, e: budget.adversarial(x, (z - x) / max(e, 1e-12), e)),
    (check.margin_objective, hinge),
    (check.margin_objective, lambda u, h, m: -torch.where(m + u * h > 0, m + u * h, 0.0).sum(1) / u.shape[1]),
]


@pytest.mark.parametrize("checked, answer", RIGHT)
def test_right_answers_pass(checked, answer, capsys):
    checked(answer)
    assert capsys.readouterr().out.startswith(f"✓ {checked.__name__}: ")


WRONG = [
    (check.pixel_epsilon, lambda e, s: e / s, "the other way"),
    (check.pixel_epsilon, lambda e, s: 255 * e * s, "grey levels"),
    (check.pixel_epsilon, lambda e, s: e * s / 255, "nothing is to be divided by 255"),
    (check.pixel_epsilon, lambda e, s: e, "has to be undone"),
    (check.pixel_epsilon, lambda e, s: e * s + 0.286, "the mean cancels"),
    (check.pixel_epsilon, lambda e, s: (e - 0.286) / s, "the mean cancels"),
    (check.fgsm_step, lambda x, g, e: signed(x, -g, e), "sign of the step is wrong"),
    (check.fgsm_step, lambda x, g, e: x + e * g.sign(), "left [0, 1]"),
    (check.fgsm_step, lambda x, g, e: x - e * g.sign(), "and the clip to [0, 1] is missing"),
    (check.fgsm_step, lambda x, g, e: (x + e * g).clamp(0, 1), "along the gradient itself"),
    (check.fgsm_step, lambda x, g, e: x + e * g, "The clip to [0, 1] is missing too"),
    (check.fgsm_step, lambda x, g, e: (x + e * g / g.abs().amax((1, 2, 3), True)).clamp(0, 1), "largest entry"),
    (check.fgsm_step, lambda x, g, e: (x + e * g / g.norm(dim=(1, 2, 3), keepdim=True)).clamp(0, 1), "Euclidean length"),
    (check.fgsm_step, lambda x, g, e: signed(x, g, e / 255), "divided by 255"),
    (check.fgsm_step, lambda x, g, e: signed(x, g, e * 255), "multiplied by 255"),
    (check.fgsm_step, lambda x, g, e: signed(x, g, e * STD), "normalised space"),
    (check.fgsm_step, lambda x, g, e: signed(x, g, e / STD), "divided by the standard deviation"),
    (check.fgsm_step, lambda x, g, e: e * g.sign(), "this is the perturbation"),
    (check.fgsm_step, lambda x, g, e: (e * g.sign()).clamp(0, 1), "clip belongs around the image"),
    (check.fgsm_step, lambda x, g, e: x + (e * g.sign()).clamp(0, 1), "clip belongs around the sum"),
    (check.project, lambda z, x, e: z.clamp(0, 1), "not projected"),
    (check.project, lambda z, x, e: x + (z - x).clamp(-e, e), "the clip is missing"),
    (check.project, lambda z, x, e: x + (z - x).clamp(-e, e).clamp(0, 1), "removes every negative change"),
    (check.project, lambda z, x, e: z.clamp(-e, e), "limits the pixels themselves"),
    (check.project, lambda z, x, e: z.clamp(-e, e).clamp(0, 1), "limits the pixels themselves"),
    (check.project, lambda z, x, e: (x + z.clamp(-e, e)).clamp(0, 1), "taken for the perturbation"),
    (check.project, lambda z, x, e: clamped(x, z, e), "swapped"),
    (check.project, lambda z, x, e: (x + e * (z - x).sign()).clamp(0, 1), "edge of the budget"),
    (check.project,
     lambda z, x, e: (x + (z - x) * (e / (z - x).abs().amax((1, 2, 3), True)).clamp(max=1)).clamp(0, 1), "scaled down"),
    (check.project, lambda z, x, e: clamped(z, x, e / 255), "divided by 255"),
    (check.project, lambda z, x, e: clamped(z, x, e * 255), "or ε was multiplied by 255"),
    (check.project, lambda z, x, e: clamped(z, x, e * STD), "normalised space"),
    (check.project, lambda z, x, e: z, "unchanged"),
    (check.project, lambda z, x, e: z.clamp_(0, 1), "in place"),
    (check.margin_objective, lambda u, h, m: -hinge(u, h, m), "sign is wrong"),
    (check.margin_objective, lambda u, h, m: -(u * h).mean(1), "plain objective"),
    (check.margin_objective, lambda u, h, m: hinge(u, h, 0), "margin is missing"),
    (check.margin_objective, lambda u, h, m: hinge(u, h, -m), "margin has the wrong sign"),
    (check.margin_objective, lambda u, h, m: hinge(-u, h, m), "is swapped"),
    (check.margin_objective, lambda u, h, m: -torch.relu(m - u * h).mean(1), "here a bit counts while it is wrong"),
    (check.margin_objective, lambda u, h, m: -(m + u * h).clamp(max=0).mean(1), "max and min are swapped"),
    (check.margin_objective, lambda u, h, m: -torch.relu(m + u * h).sum(1), "sum over the bits"),
    (check.margin_objective, lambda u, h, m: hinge(u, h, m).mean(), "one number for the whole batch"),
    (check.margin_objective, lambda u, h, m: -torch.relu(m + (u * h).mean(1)), "each bit has to stop on its own"),
    (check.margin_objective, lambda u, h, m: hinge(u.sign(), h, m), "whose gradient is 0"),
    (check.margin_objective, lambda u, h, m: hinge(u.detach(), h, m), "nothing can be differentiated"),
]  # fmt: skip


@pytest.mark.parametrize("checked, answer, told", WRONG)
def test_typical_mistakes_are_explained(checked, answer, told):
    with pytest.raises(CheckFailed) as failed:
        checked(answer)
    assert told.lower() in str(failed.value).lower()


@pytest.mark.parametrize("checked", [check.pixel_epsilon, check.fgsm_step, check.project, check.margin_objective])
def test_the_stub_fails(checked):
    def stub(*args):
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="not implemented yet"):
        checked(stub)

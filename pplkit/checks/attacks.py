"""Checks of notebook 03: ε in pixel units, one FGSM step, PGD's projection, an objective that stops at flipped bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pplkit.budget import adversarial
from pplkit.checks import call, check, compare, expect_close, expect_tensor, gradient

STD = 0.353  # of the grey images, see pplkit.backbones


@check
def pixel_epsilon(function: Callable) -> str:
    """03.1: how far an attack with ε in normalised space really moves a pixel."""
    cases = [(0.1, STD), (8 / 255, 0.25), (1.0, STD), (0.0, 0.5), (0.03, 1.0)]
    compare(
        function,
        lambda epsilon, std: epsilon * std,
        cases,
        rtol=1e-6,
        mistakes=[
            (lambda e, s: e / s, "you went the other way: this takes a pixel ε into normalised space"),
            (lambda e, s: e * s * 255, "these are grey levels; pixel units run from 0 to 1, without the 255"),
            (lambda e, s: e * s / 255, "ε already is in units of the 0..1 range; nothing is to be divided by 255"),
            (lambda e, s: e, "normalisation divides by the standard deviation; that has to be undone"),
            (lambda e, s: e * s + 0.286, "this undoes the normalisation of an image; in a difference of two images "
                                         "the mean cancels"),
            (lambda e, s: (e - 0.286) / s, "this normalises an image; in a difference of two images the mean cancels"),
        ],
    )  # fmt: skip
    return f"{len(cases)} pairs of epsilon and standard deviation"


def _image_cases() -> list[tuple]:
    """A 2 × 3 image to check by eye, with a black and a white pixel; then seeded batches."""
    x = torch.tensor([[[[0.0, 0.5, 0.4], [1.0, 0.05, 0.7]]]])
    gradient = torch.tensor([[[[-3.0, 0.02, -1.0], [2.0, 0.5, -0.5]]]])
    cases: list[tuple] = [(x, gradient, 0.1)]
    for seed, shape, epsilon in ((0, (3, 1, 5, 4), 0.3), (1, (2, 3, 4, 4), 0.03), (2, (2, 1, 3, 3), 0.0)):
        random = torch.Generator().manual_seed(seed)
        images = torch.rand(shape, generator=random).mul(1.4).sub(0.2).clamp(0, 1)
        gradient = torch.randn(shape, generator=random)
        gradient[..., 0, 0] = 0.0  # where the loss does not depend on a pixel, the pixel stays
        cases.append((images, gradient, epsilon))
    return cases


@check
def fgsm_step(function: Callable) -> str:
    """03.2: z = clip(x + ε sign(gradient), 0, 1)."""

    def step(images: Tensor, direction: Tensor, epsilon: float) -> Tensor:
        return (images + epsilon * direction).clamp(0, 1)

    cases = _image_cases()
    compare(
        function,
        lambda images, gradient, epsilon: adversarial(images, gradient.sign(), epsilon),
        cases,
        rtol=1e-5,
        mistakes=[
            (lambda images, gradient, epsilon: step(images, -gradient.sign(), epsilon),
             "the sign of the step is wrong: this descends, so it makes the objective smaller; the attack maximises it"),
            (lambda images, gradient, epsilon: images + epsilon * gradient.sign(),
             "the step is right, but some pixels left [0, 1]: such an image cannot be published; clip it"),
            (lambda images, gradient, epsilon: (images + epsilon * gradient.sign()).clamp_min(0),
             "the step is right, but some pixels went above 1: images run from 0 to 1 here, not to 255"),
            (lambda images, gradient, epsilon: images - epsilon * gradient.sign(),
             "the sign of the step is wrong (the attack maximises the objective), and the clip to [0, 1] is missing"),
            *((lambda images, gradient, epsilon, at_zero=at_zero: step(images, (gradient + at_zero).sign(), epsilon),
               "where the gradient is 0 the pixel must stay; torch.sign is 0 there") for at_zero in (1e-9, -1e-9)),
            (lambda images, gradient, epsilon: step(images, gradient, epsilon),
             "this steps along the gradient itself, so its length depends on the gradient and large values break "
             "the budget; only the sign counts"),
            (lambda images, gradient, epsilon: images + epsilon * gradient,
             "this steps along the gradient itself, so its length depends on the gradient; only the sign counts. "
             "The clip to [0, 1] is missing too"),
            (lambda images, gradient, epsilon: step(images, gradient / gradient.abs().amax((1, 2, 3), True), epsilon),
             "scaling by the largest entry lets only one pixel use the whole budget; with the sign all of them do"),
            (lambda images, gradient, epsilon: step(images, gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None],
                                                    epsilon),
             "this step has Euclidean length ε over the whole image; in the max norm every pixel may move by ε"),
            (lambda images, gradient, epsilon: step(images, gradient.sign(), epsilon / 255),
             "epsilon was divided by 255; it is in pixel units already, as the images are"),
            (lambda images, gradient, epsilon: step(images, gradient.sign(), epsilon * 255),
             "epsilon was multiplied by 255; the images run from 0 to 1, not to 255"),
            (lambda images, gradient, epsilon: step(images, gradient.sign(), epsilon * STD),
             "this ε is in normalised space (times the standard deviation); the images here are pixels"),
            (lambda images, gradient, epsilon: step(images, gradient.sign(), epsilon / STD),
             "epsilon was divided by the standard deviation; images and ε are in pixel units, nothing is to be converted"),
            (lambda images, gradient, epsilon: epsilon * gradient.sign(),
             "this is the perturbation; return the image that carries it"),
            (lambda images, gradient, epsilon: (epsilon * gradient.sign()).clamp(0, 1),
             "the clip belongs around the image, not around the perturbation; and return the image"),
            (lambda images, gradient, epsilon: images + (epsilon * gradient.sign()).clamp(0, 1),
             "the clip belongs around the sum: around the perturbation it removes every negative step"),
        ],
    )  # fmt: skip
    return f"{len(cases)} batches: direction, size and clip of the step, grey and colour"


@check
def project(function: Callable) -> str:
    """03.3: the nearest image to the proposal that is within ε of x (max norm) and in [0, 1]."""
    x = torch.tensor([[[[0.0, 0.5], [1.0, 0.25]]]])
    proposal = torch.tensor([[[[-0.3, 0.9], [0.95, 0.2]]]])
    cases = [(proposal, x, 0.1)]
    for seed, shape, epsilon in ((3, (3, 1, 5, 4), 0.3), (4, (2, 3, 4, 4), 0.05), (5, (2, 1, 3, 3), 0.0)):
        random = torch.Generator().manual_seed(seed)
        images = torch.rand(shape, generator=random).mul(1.4).sub(0.2).clamp(0, 1)
        cases.append((images + 0.4 * torch.randn(shape, generator=random), images, epsilon))

    def right(proposal: Tensor, images: Tensor, epsilon: float) -> Tensor:
        return (images + (proposal - images).clamp(-epsilon, epsilon)).clamp(0, 1)

    def radial(proposal: Tensor, images: Tensor, epsilon: float) -> Tensor:
        change = proposal - images
        largest = change.abs().amax((1, 2, 3), True)  # (B, 1, 1, 1)
        return (images + change * (epsilon / largest).clamp(max=1)).clamp(0, 1)

    compare(
        function,
        right,
        cases,
        rtol=1e-5,
        mistakes=[
            (lambda proposal, images, epsilon: proposal.clamp(0, 1),
             "this is clipped to [0, 1] but not projected (or ε was multiplied by 255): the perturbation exceeds ε"),
            (lambda proposal, images, epsilon: images + (proposal - images).clamp(-epsilon, epsilon),
             "the budget is kept, but some pixels left [0, 1]: the clip is missing"),
            (lambda proposal, images, epsilon: images + (proposal.clamp(0, 1) - images).clamp(-epsilon, epsilon).clamp(0, 1),
             "the last clip belongs around the image: around the perturbation it removes every negative change"),
            (lambda proposal, images, epsilon: images + (proposal - images).clamp(-epsilon, epsilon).clamp(0, 1),
             "the clip belongs around the image: around the perturbation it removes every negative change"),
            (lambda proposal, images, epsilon: proposal.clamp(-epsilon, epsilon),
             "this limits the pixels themselves; ε limits the difference to the clean image"),
            (lambda proposal, images, epsilon: proposal.clamp(-epsilon, epsilon).clamp(0, 1),
             "this limits the pixels themselves; ε limits the difference to the clean image"),
            (lambda proposal, images, epsilon: (images + proposal.clamp(-epsilon, epsilon)).clamp(0, 1),
             "here the proposal is taken for the perturbation; the perturbation is proposal − images"),
            (lambda proposal, images, epsilon: right(images, proposal, epsilon),
             "proposal and clean image are swapped: the result must be near the clean image"),
            (lambda proposal, images, epsilon: (images + epsilon * (proposal - images).sign()).clamp(0, 1),
             "this pushes every pixel to the edge of the budget; pixels that are within it must stay where they are"),
            (radial, "the whole perturbation was scaled down; that is within the budget, but not the nearest image: "
                     "in the max norm each pixel is limited on its own"),
            (lambda proposal, images, epsilon: right(proposal, images, epsilon / 255),
             "epsilon was divided by 255; it is in pixel units already"),
            (lambda proposal, images, epsilon: right(proposal, images, epsilon * STD),
             "this ε is in normalised space (times the standard deviation); the images here are pixels"),
            (lambda proposal, images, epsilon: proposal, "the proposal came back unchanged"),
        ],
    )  # fmt: skip
    return f"{len(cases)} batches: ball, clip, and pixels within both left alone"


@check
def margin_objective(function: Callable) -> str:
    """03.4: −mean over the bits of max(0, m + h·u): a bit that is wrong by the margin no longer counts."""
    u = torch.tensor([[0.9, -0.8, -0.1, 0.6], [0.25, 0.3, -0.9, -1.0]])
    h = torch.tensor([[1.0, 1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
    cases = [(u, h, 0.2)]
    for seed, shape, margin in ((6, (5, 16), 0.5), (7, (3, 8), 0.0), (8, (1, 12), 1.0)):
        random = torch.Generator().manual_seed(seed)
        relaxed = torch.rand(shape, generator=random) * 2 - 1
        codes = torch.randint(0, 2, shape, generator=random) * 2.0 - 1
        cases.append((relaxed, codes, margin))

    def right(relaxed: Tensor, clean_codes: Tensor, margin: float) -> Tensor:
        return -(margin + relaxed * clean_codes).clamp_min(0).mean(1)  # (B,)

    compare(
        function,
        right,
        cases,
        rtol=1e-5,
        mistakes=[
            (lambda relaxed, clean_codes, margin: -right(relaxed, clean_codes, margin),
             "the sign is wrong: PGD maximises the objective, so it must grow when bits flip"),
            (lambda relaxed, clean_codes, margin: -(relaxed * clean_codes).mean(1),
             "this is the plain objective: bits that are already wrong by the margin still count"),
            (lambda relaxed, clean_codes, margin: -(relaxed * clean_codes).clamp_min(0).mean(1),
             "the margin is missing: a bit counts until it is wrong by the margin, not only until it is 0"),
            (lambda relaxed, clean_codes, margin: -(relaxed * clean_codes - margin).clamp_min(0).mean(1),
             "the margin has the wrong sign: bits would stop counting while they are still right"),
            (lambda relaxed, clean_codes, margin: right(-relaxed, clean_codes, margin),
             "here a bit counts while it is wrong and stops counting once it is right: the sign of h·u is swapped"),
            (lambda relaxed, clean_codes, margin: -(margin - relaxed * clean_codes).clamp_min(0).mean(1),
             "this is the hinge of a classifier: here a bit counts while it is wrong, and stops once it is right"),
            (lambda relaxed, clean_codes, margin: -(margin + relaxed * clean_codes).clamp_max(0).mean(1),
             "max and min are swapped: only the bits that are wrong already count"),
            (lambda relaxed, clean_codes, margin: -(margin + relaxed * clean_codes).clamp_min(0).sum(1),
             "this is the sum over the bits; take the mean, so that the value does not depend on the code length"),
            (lambda relaxed, clean_codes, margin: -(margin + relaxed * clean_codes).clamp_min(0).mean(),
             "this is one number for the whole batch; every image needs its own, shape (B,)"),
            (lambda relaxed, clean_codes, margin: -(margin + (relaxed * clean_codes).mean(1)).clamp_min(0),
             "the max was taken after the mean over the bits; each bit has to stop on its own"),
            (lambda relaxed, clean_codes, margin: -(margin + relaxed.sign() * clean_codes).clamp_min(0).mean(1),
             "this uses sign(u), whose gradient is 0 everywhere; use the relaxed codes"),
        ],
    )  # fmt: skip
    random = torch.Generator().manual_seed(9)
    for number, (relaxed, codes, margin) in enumerate(cases[:2], start=1):
        case = f"case {number} of {len(cases)}, with a gradient"
        relaxed = relaxed.clone().requires_grad_()
        weight = torch.rand(len(relaxed), generator=random)  # (B,), so that images are told apart
        arrived = []
        for answer in (function, right):
            value = expect_tensor(call(answer, relaxed, codes, margin, case=case), shape=weight.shape, case=case)
            arrived.append(gradient((value * weight).sum(), relaxed, name="u", case=case))
        expect_close(arrived[0], arrived[1], case=case, name="the gradient for the relaxed codes")
    return f"{len(cases)} batches, value and gradient"

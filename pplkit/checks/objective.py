"""Answer checks of notebook 07: matching loss, balanced S, the gradient of the similarity loss, what each player minimises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pplkit import losses
from pplkit.checks import call, check, compare, expect_close, expect_tensor, show

DOUBLE = torch.float64


def _codes(rows: int, bits: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Relaxed codes (rows, bits) in (-1, 1), rounded so that small cases can be followed by hand."""
    random = torch.Generator().manual_seed(seed)
    return (torch.rand(rows, bits, generator=random, dtype=DOUBLE) * 2 - 1).mul(10).round().div(10).to(dtype)


@check
def matching_loss(function: Callable) -> str:
    """07.2: J_e, eq. (10), as a mean over images."""
    small = (torch.tensor([[0.9, 0.5], [0.5, 0.9]]), torch.tensor([[0.7, -0.3], [0.9, 0.1]]))
    cases = [small, *((_codes(rows, bits, rows), _codes(rows, bits, 50 + bits)) for rows, bits in ((1, 3), (5, 8), (64, 16)))]
    compare(
        function,
        losses.matching_loss,
        cases,
        mistakes=[
            (lambda x, z: (x - z).square().sum(0).mean(), "The axes are swapped: sum over the bits, mean over the images"),
            (lambda x, z: (x - z).square().mean(), "This is also a mean over the bits; ‖·‖² is their sum"),
            (lambda x, z: (x - z).square().sum(), "This is the sum over the images; the package takes their mean"),
            (lambda x, z: (x - z).norm(dim=1).mean(), "The norm is not squared"),
            (lambda x, z: (x - z).norm(), "This is the square root of the sum of everything; square each row's norm, no root"),
            (lambda x, z: (x - z).sum(1).square().mean(), "Square each difference before you add the bits up, not after"),
            (lambda x, z: (x - z).abs().sum(1).mean(), "These are absolute differences; ‖·‖² needs squared ones"),
            (lambda x, z: (x.mean(0) - z.mean(0)).square().sum(),
             "These are the distances of the two means; each image must be compared with its own protected version"),
            (lambda x, z: losses.squared_distances(x, z).mean(),
             "This compares every image with every protected one; only pairs of the same image count"),
            (lambda x, z: (x - z).square().sum(1), "This is one value per image; their mean is missing"),
            (lambda x, z: -(x - z).square().sum(1).mean(), "The sign is flipped"),
        ],
    )  # fmt: skip
    return f"{len(cases)} batches, up to 64 codes of 16 bits"


def _balanced(labels: Tensor) -> Tensor:
    return losses.similarity_matrix(labels, balanced=True)


def _weighted(value: Callable[[Tensor, float, float], float]) -> Callable[[Tensor], Tensor]:
    """S with another value for dissimilar pairs, made from the mask and the two counts."""

    def similarity(labels: Tensor) -> Tensor:
        same = labels[:, None] == labels[None, :]
        return torch.where(same, 1.0, value(labels, float(same.sum()), float((~same).sum())))

    return similarity


@check
def balanced_similarity(function: Callable) -> str:
    """07.3: S with -r for dissimilar pairs, r = #similar / #dissimilar."""
    random = torch.Generator().manual_seed(3)
    cases = [
        (torch.tensor([4, 7, 4, 2]),),
        (torch.tensor([0, 0, 1]),),
        (torch.arange(5),),
        (torch.arange(10).repeat_interleave(3),),
        (torch.randint(0, 10, (64,), generator=random),),
    ]

    def without_diagonal(labels: Tensor, similar: float, dissimilar: float) -> float:
        return -(similar - len(labels)) / dissimilar

    def both_scaled(labels: Tensor) -> Tensor:
        same = labels[:, None] == labels[None, :]
        return torch.where(same, float(1 / same.sum()), float(-1 / (~same).sum()))

    compare(
        function,
        _balanced,
        cases,
        mistakes=[
            (_weighted(lambda labels, similar, dissimilar: -1.0), "This is the literal S, -1 for every dissimilar pair"),
            (_weighted(lambda labels, similar, dissimilar: -dissimilar / similar),
             "r is upside down: #similar goes on top, so that the many dissimilar pairs get a small weight"),
            (_weighted(lambda labels, similar, dissimilar: similar / dissimilar), "Dissimilar pairs lost their minus sign"),
            (_weighted(lambda labels, similar, dissimilar: 0.0), "Dissimilar pairs are 0 here: they get -r"),
            (_weighted(lambda labels, similar, dissimilar: -similar / (similar + dissimilar)),
             "Divide by the number of dissimilar pairs, not of all pairs"),
            (_weighted(without_diagonal),
             "The diagonal was left out of the count; the losses sum over it, so it is counted as similar"),
            (_weighted(lambda labels, similar, dissimilar: -1 / (labels.unique().numel() - 1)),
             "This holds for classes of equal size only; count the pairs of this batch"),
            (both_scaled, "Similar pairs stay +1; only the dissimilar ones are weighted"),
            (lambda labels: _balanced(labels) - torch.eye(len(labels)),
             "The diagonal must be +1: an image is similar to itself"),
        ],
    )  # fmt: skip
    alone = torch.tensor([6, 6, 6])
    case = f"no dissimilar pair, {show(alone)}"
    everything = expect_tensor(call(function, alone, case=case), shape=(3, 3), case=case)
    expect_close(everything, torch.ones(3, 3), case=case)
    return f"{len(cases)} batches of labels, and one without a dissimilar pair"


def _similarity_gradient(clean: Tensor, adversarial: Tensor, similarity: Tensor) -> Tensor:
    """The gradient of the packaged loss with respect to Z, by automatic differentiation."""
    z = adversarial.detach().clone().requires_grad_()
    return torch.autograd.grad(losses.similarity_loss(clean.detach(), z, similarity), z)[0]


def _residual(clean: Tensor, adversarial: Tensor, similarity: Tensor) -> Tensor:
    return clean @ adversarial.T / clean.shape[1] - similarity  # (B, N)


@check
def similarity_gradient(function: Callable) -> str:
    """07.1: the gradient of J_s with respect to the protected codes, by formula."""
    cases = []
    for seed, (rows, columns, bits) in enumerate([(2, 5, 3), (1, 1, 2), (4, 6, 3), (32, 20, 16)], start=1):
        random = torch.Generator().manual_seed(seed)
        similarity = losses.similarity_matrix(
            torch.randint(0, 3, (rows,), generator=random), torch.randint(0, 3, (columns,), generator=random), balanced=True)
        cases.append((_codes(rows, bits, seed, DOUBLE), _codes(columns, bits, 20 + seed, DOUBLE), similarity.to(DOUBLE)))

    def scaled(factor: Callable[[int, int, int], float]) -> Callable[..., Tensor]:
        return lambda x, z, s: factor(len(x), len(z), x.shape[1]) * _residual(x, z, s).T @ x

    compare(
        function,
        _similarity_gradient,
        cases,
        rtol=1e-6,
        atol=1e-9,
        mistakes=[
            (scaled(lambda b, n, c: 1 / (b * n * c)), "The factor 2 of the square is missing"),
            (scaled(lambda b, n, c: 2 / (b * n)), "The inner derivative is x_i/c; the 1/c is missing"),
            (scaled(lambda b, n, c: 2 / (b * n * c * c)), "One 1/c too many: the c inside the residual is already there"),
            (scaled(lambda b, n, c: 2 / (b * c)), "The mean is over all B·N pairs, not over the B clean images"),
            (scaled(lambda b, n, c: 2 / (n * c)), "The mean is over all B·N pairs, not over the N protected images"),
            (scaled(lambda b, n, c: 2 / c), "This is the gradient of the sum over pairs; the package takes the mean"),
            (scaled(lambda b, n, c: -2 / (b * n * c)), "This is the downhill direction; the gradient points uphill"),
            (lambda x, z, s: 2 / (s.numel() * x.shape[1]) * _residual(x, z, s) @ z,
             "This is the gradient with respect to the clean codes X; z_j meets the codes x_i"),
            (lambda x, z, s: 2 / (s.numel() * x.shape[1]) * (x @ z.T / x.shape[1]).T @ x,
             "S is missing in the residual"),
            (lambda x, z, s: 2 / (s.numel() * x.shape[1]) * (x @ z.T - s).T @ x,
             "The residual is x_i·z_j / c - S_ij; its 1/c is missing"),
        ],
    )  # fmt: skip
    return f"{len(cases)} batches against automatic differentiation"


@check
def player_losses(function: Callable) -> str:
    """07.4: (J_o - λ J_p, J_o + J_p), eq. (12), with J_p = α D_s + β J_s + γ J_e, eq. (11)."""
    for number, (weights, scale) in enumerate([((1.0, 10.0, 1.0), 1.0), ((2.0, 3.0, 0.5), 0.25)], start=1):
        clean, protected = _codes(6, 3, number, DOUBLE), _codes(6, 3, 10 + number, DOUBLE)
        similarity = _balanced(torch.tensor([0, 0, 1, 1, 2, 2])).to(DOUBLE)
        a, b, g = weights
        o = losses.affinity_loss(protected, similarity)
        d, s, e = losses.PrivacyLoss().terms(clean, protected, similarity).values()
        p = a * d + b * s + g * e
        case = f"case {number} of 2, alpha={a:g}, beta={b:g}, gamma={g:g}, scale={scale:g}"
        result = call(function, clean, protected, similarity, a, b, g, scale, case=case)
        at_clean = losses.affinity_loss(clean, similarity)
        typical = [
            ((o + p, o - scale * p), "The two are swapped: the generator's comes first"),
            ((o - scale * p, o - scale * p), "The surrogate minimises J_p, with a plus"),
            ((o + p, o + p), "The generator maximises J_p: it enters its loss with a minus"),
            ((o + scale * p, o + p), "The generator maximises J_p: it enters its loss with a minus"),
            ((-scale * (o + p), o + p), "J_o was turned as well; both players minimise J_o"),
            ((-o - scale * p, o + p), "J_o was turned as well; both players minimise J_o"),
            ((o - scale * p, -o + p), "J_o was turned as well; both players minimise J_o"),
            ((o - p, o + p), "Lambda (scale) is missing in the generator's loss"),
            ((o - scale * p, o + scale * p), "Lambda (scale) belongs to the generator's loss only"),
            ((-scale * p, p), "J_o is missing: both players also minimise it"),
            ((o - scale * p, p), "J_o is missing in the surrogate's loss: this is Algorithm 1, eq. (12) has J_o + J_p"),
            ((o - scale * a * d + b * s + g * e, o + p), "The minus reaches the first term only: put all of J_p in brackets"),
            ((o - scale * (d + 10 * s + e), o + d + 10 * s + e), "The weights are ignored: use alpha, beta, gamma as given"),
            ((o - scale * (d + s + e), o + d + s + e), "The weights alpha, beta, gamma are missing"),
        ]
        for x, y, z in ((a * d, g * s, b * e), (b * d, a * s, g * e), (g * d, b * s, a * e), (b * d, g * s, a * e),
                        (g * d, a * s, b * e)):  # fmt: skip
            mixed = x + y + z
            typical.append(((o - scale * mixed, o + mixed),
                            "The weights are mixed up: alpha is D_s's, beta J_s's, gamma J_e's"))  # fmt: skip
        o, wrong = losses.affinity_loss(protected, similarity), at_clean
        typical.append(((wrong - scale * p, wrong + p), "J_o is about the protected codes Z, not about the clean ones"))
        expect_close(result, (o - scale * p, o + p), rtol=1e-6, case=case, mistakes=typical)
    return "both losses for two sets of weights"

"""Checks of notebook 07: right answers pass, typical wrong ones are told what is wrong."""

import pytest
import torch

from pplkit import losses
from pplkit.checks import CheckFailed
from pplkit.checks import objective as check


def pairs(labels):
    same = labels[:, None] == labels[None, :]
    return same, same.sum(), (~same).sum().clamp_min(1)


def balanced(labels):
    same, similar, dissimilar = pairs(labels)
    return torch.where(same, 1.0, -similar / dissimilar)


def gradient(clean, adversarial, similarity):
    residual = clean @ adversarial.T / clean.shape[1] - similarity
    return 2 / (residual.numel() * clean.shape[1]) * residual.T @ clean


def autograd(clean, adversarial, similarity):
    z = adversarial.clone().requires_grad_()
    return torch.autograd.grad(losses.similarity_loss(clean, z, similarity), z)[0]


def players(combine, privacy=lambda d, s, e, a, b, g: a * d + b * s + g * e, affinity=lambda x, z: z):
    def losses_of_both(clean, protected, similarity, alpha, beta, gamma, scale=1.0):
        o = losses.affinity_loss(affinity(clean, protected), similarity)
        d = losses.smmd(clean, protected, similarity)
        s = losses.similarity_loss(clean, protected, similarity)
        e = losses.matching_loss(clean, protected)
        return combine(o, privacy(d, s, e, alpha, beta, gamma), scale)

    return losses_of_both


right_players = players(lambda o, p, t: (o - t * p, o + p))

RIGHT = {
    "matching_loss": [lambda x, z: (x - z).square().sum(1).mean(), lambda x, z: float(((x - z) ** 2).sum() / len(x))],
    "balanced_similarity": [balanced, lambda labels: losses.similarity_matrix(labels, balanced=True)],
    "similarity_gradient": [gradient, autograd],
    "player_losses": [right_players],
}


def stub(*args, **kwargs):
    raise NotImplementedError


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_and_the_stub_fails(name, capsys):
    for answer in RIGHT[name]:
        getattr(check, name)(answer)
        assert capsys.readouterr().out.startswith(f"✓ {name}: ")
    with pytest.raises(CheckFailed, match="not implemented yet"):
        getattr(check, name)(stub)


def weighted(value):
    def similarity(labels):
        same, similar, dissimilar = pairs(labels)
        return torch.where(same, 1.0, value(len(labels), similar, dissimilar))

    return similarity


def scaled(factor):
    def wrong(clean, adversarial, similarity):
        b, n, c = len(clean), len(adversarial), clean.shape[1]
        return factor(b, n, c) * (clean @ adversarial.T / c - similarity).T @ clean

    return wrong


WRONG = [
    ("matching_loss", lambda x, z: (x - z).square().mean(), "also a mean over the bits"),
    ("matching_loss", lambda x, z: (x - z).square().sum(), "the sum over the images"),
    ("matching_loss", lambda x, z: (x - z).norm(dim=1).mean(), "not squared"),
    ("matching_loss", lambda x, z: (x - z).norm(), "square root of the sum of everything"),
    ("matching_loss", lambda x, z: (x - z).sum(1).square().mean(), "before you add the bits up"),
    ("matching_loss", lambda x, z: (x - z).abs().sum(1).mean(), "absolute differences"),
    ("matching_loss", lambda x, z: (x.mean(0) - z.mean(0)).square().sum(), "distances of the two means"),
    ("matching_loss", lambda x, z: torch.cdist(x, z).square().mean(), "every image with every protected one"),
    ("matching_loss", lambda x, z: (x - z).square().sum(1), r"shape \(2,\)"),
    ("matching_loss", lambda x, z: -(x - z).square().sum(1).mean(), "sign is flipped"),
    ("matching_loss", lambda x, z: x.sub_(z).square().sum(1).mean(), "in place"),
    ("balanced_similarity", lambda y: losses.similarity_matrix(y), "literal S"),
    ("balanced_similarity", weighted(lambda n, s, d: -d / s), "upside down"),
    ("balanced_similarity", weighted(lambda n, s, d: s / d), "lost their minus"),
    ("balanced_similarity", weighted(lambda n, s, d: torch.zeros(())), "Dissimilar pairs are 0"),
    ("balanced_similarity", weighted(lambda n, s, d: -s / (s + d)), "not of all pairs"),
    ("balanced_similarity", weighted(lambda n, s, d: -(s - n) / d), "diagonal was left out of the count"),
    ("balanced_similarity", lambda y: weighted(lambda n, s, d: -1 / (len(y.unique()) - 1))(y), "equal size only"),
    ("balanced_similarity", lambda y: balanced(y) - torch.eye(len(y)), "diagonal must be"),
    ("balanced_similarity", lambda y: pairs(y)[0], "bool"),
    ("similarity_gradient", scaled(lambda b, n, c: 1 / (b * n * c)), "factor 2"),
    ("similarity_gradient", scaled(lambda b, n, c: 2 / (b * n)), "the 1/c is missing"),
    ("similarity_gradient", scaled(lambda b, n, c: 2 / (b * n * c * c)), "One 1/c too many"),
    ("similarity_gradient", scaled(lambda b, n, c: 2 / c), "gradient of the sum"),
    ("similarity_gradient", scaled(lambda b, n, c: -2 / (b * n * c)), "points uphill"),
    ("similarity_gradient", lambda x, z, s: z, "got"),
    ("player_losses", players(lambda o, p, t: (o + p, o - t * p)), "swapped"),
    ("player_losses", players(lambda o, p, t: (o - t * p, o - t * p)), "surrogate minimises J_p"),
    ("player_losses", players(lambda o, p, t: (o + p, o + p)), "generator maximises J_p"),
    ("player_losses", players(lambda o, p, t: (-t * (o + p), o + p)), "J_o was turned"),
    ("player_losses", players(lambda o, p, t: (-t * p, p)), "J_o is missing"),
    ("player_losses", players(lambda o, p, t: (o - t * p, p)), "Algorithm 1"),
    ("player_losses", players(lambda o, p, t: (o - t * p, o + p), lambda d, s, e, a, b, g: d + s + e), "are missing"),
    ("player_losses", players(lambda o, p, t: (o - t * p, o + p), lambda d, s, e, a, b, g: a * d + g * s + b * e), "mixed up"),
    ("player_losses", players(lambda o, p, t: (o - t * p, o + p), affinity=lambda x, z: x), "not about the clean ones"),
    ("player_losses", players(lambda o, p, t: o + p), "2 values are needed"),
]


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_are_explained(name, answer, message):
    with pytest.raises(CheckFailed, match=message):
        getattr(check, name)(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda *a: players(lambda o, p, t: (o - p, o + p))(*a), "Lambda .* is missing"),
        (lambda *a: players(lambda o, p, t: (o - t * p, o + t * p))(*a), "generator's loss only"),
    ],
)
def test_lambda_is_looked_at_although_it_is_1_first(answer, message):
    with pytest.raises(CheckFailed, match=message):
        check.player_losses(answer)


def test_a_wrong_residual_or_the_wrong_codes_are_recognised_on_larger_cases():
    def without_similarity(x, z, s):
        return 2 / (s.numel() * x.shape[1]) * (x @ z.T / x.shape[1]).T @ x

    def at_clean(x, z, s):
        return 2 / (s.numel() * x.shape[1]) * (x @ z.T / x.shape[1] - s) @ z

    with pytest.raises(CheckFailed, match="S is missing"):
        check.similarity_gradient(without_similarity)
    with pytest.raises(CheckFailed, match="with respect to the clean codes|must be"):
        check.similarity_gradient(at_clean)


def test_a_batch_without_dissimilar_pairs_must_not_give_nan():
    def divides_by_zero(labels):
        same = labels[:, None] == labels[None, :]
        r = same.sum() / (~same).sum()
        return same.float() - r * (~same).float()

    with pytest.raises(CheckFailed, match="no dissimilar pair.*NaN"):
        check.balanced_similarity(divides_by_zero)

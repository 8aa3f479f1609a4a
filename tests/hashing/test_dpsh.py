"""DPSH: the pairwise likelihood and its one-pass gradient beside autograd and loops."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pplkit.hashing import DPSH, dpsh
from pplkit.hashing.dpsh import pairwise_likelihood, similar_pairs
from pplkit.hashing.network import sign
from pplkit.losses import similarity_matrix

CLASSES = torch.tensor([0, 1, 0, 2, 1])
MULTI = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1]])


def relaxed(rows: int, bits: int = 4, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.tanh(torch.randn(rows, bits, generator=random, dtype=torch.float64))


@pytest.mark.parametrize("weight", [1.0, 0.2])
def test_likelihood_equals_a_double_loop(weight):
    u, buffer = relaxed(5), relaxed(7, seed=1)
    similar = similar_pairs(CLASSES, torch.arange(7) % 3).double()
    for i, row in enumerate(pairwise_likelihood(u, buffer, similar, weight).tolist()):
        total = 0.0
        for j in range(7):
            theta = sum(a * b for a, b in zip(u[i].tolist(), buffer[j].tolist(), strict=True)) / 2
            s = similar[i, j].item()
            total += (1 if s else weight) * (math.log(1 + math.exp(theta)) - s * theta)
        assert row == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("weight", [1.0, 0.2])
def test_its_gradient_is_that_of_softplus(weight):
    u, buffer = relaxed(5).requires_grad_(), relaxed(7, seed=1)
    similar = similar_pairs(CLASSES, torch.arange(7) % 3).double()
    scale = torch.rand(5, dtype=torch.float64)
    (ours,) = torch.autograd.grad((scale * pairwise_likelihood(u, buffer, similar, weight)).sum(), u)
    theta = u @ buffer.T / 2
    weights = similar + weight * (1 - similar)
    explicit = (scale * (weights * (softplus(theta) - similar * theta)).sum(1)).sum()
    assert torch.allclose(ours, torch.autograd.grad(explicit, u)[0], rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x: pairwise_likelihood(x, buffer, similar, weight), u)


def test_large_codes_do_not_overflow():
    u = torch.full((2, 200), 1.0).requires_grad_()
    value = pairwise_likelihood(u, torch.cat([u, -u]).detach(), torch.ones(2, 4))
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(u.grad).all()


def test_second_derivatives_are_refused_rather_than_wrong():
    u, buffer = relaxed(2).requires_grad_(), relaxed(3, seed=1)
    value = pairwise_likelihood(u, buffer, torch.ones(2, 3)).square().sum()
    (first,) = torch.autograd.grad(value, u, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable|not have been used"):
        torch.autograd.grad(first.sum(), u)


@pytest.mark.parametrize("labels", [CLASSES, MULTI], ids=["classes", "multi-label"])
def test_similar_pairs_are_the_positive_ones_of_the_similarity_matrix(labels):
    assert torch.equal(similar_pairs(labels, labels[:3]), (similarity_matrix(labels, labels[:3]) > 0).float())


@pytest.mark.parametrize("labels", [CLASSES, MULTI], ids=["classes", "multi-label"])
def test_the_balance_is_similar_over_dissimilar_pairs(labels):
    similar = similar_pairs(labels, labels)
    assert dpsh._balance(labels) == pytest.approx((similar.sum() / (1 - similar).sum()).item())
    assert dpsh._balance(torch.zeros(4).long()) == 1.0


@pytest.mark.parametrize("balanced", [True, False])
def test_training_minimises_the_published_objective(toy, balanced, monkeypatch):
    """With one batch per epoch the stored loss must be the sum over all pairs, both sides of each counted."""
    images, labels = toy
    seen = []
    original = pairwise_likelihood

    def watch(u, buffer, similar, weight):
        seen.append((u.detach().clone(), buffer.clone(), similar.clone(), weight))
        return original(u, buffer, similar, weight)

    monkeypatch.setattr(dpsh, "pairwise_likelihood", watch)
    victim = DPSH(4, eta=3.0, balanced=balanced, batch_size=96, epochs=2, autocast=False)
    victim.fit(images, labels, progress=False)
    assert len(seen) == 2
    for loss, (u, buffer, similar, weight) in zip(victim.history, seen, strict=True):
        assert weight == (pytest.approx(dpsh._balance(labels)) if balanced else 1.0)
        assert torch.equal(buffer.sort(0).values, u.sort(0).values)  # the buffer holds this very epoch's outputs
        assert similar.sum() == 3 * 32**2
        theta = u.double() @ buffer.double().T / 2
        weights = similar + weight * (1 - similar)
        pairs = (weights * (softplus(theta) - similar * theta)).sum()
        quantisation = (u - sign(u)).double().square().sum()
        assert loss == pytest.approx((2 * pairs + 3.0 * quantisation).item() / 96**2, rel=1e-5)

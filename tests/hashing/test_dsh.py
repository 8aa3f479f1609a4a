"""DSH: the contrastive loss beside a double loop."""

import pytest
import torch
from torch import Tensor

from pplkit.hashing import DSH, dsh
from pplkit.hashing.dsh import contrastive_loss

LABELS = torch.tensor([0, 1, 0, 2, 1, 1])
SIMILAR = (LABELS[:, None] == LABELS[None]).double()


def relaxed(rows: int = 6, bits: int = 4, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.tanh(torch.randn(rows, bits, generator=random, dtype=torch.float64))


@pytest.mark.parametrize("margin", [0.5, 3.0, 8.0])
def test_the_contrastive_loss_equals_a_double_loop(margin):
    u, total = relaxed(), 0.0
    for i, a in enumerate(u.tolist()):
        for j, b in enumerate(u.tolist()):
            if i != j:
                distance = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
                total += distance / 2 if SIMILAR[i, j] else max(margin - distance, 0) / 2
    assert contrastive_loss(u, SIMILAR, margin).item() == pytest.approx(total / 30, abs=1e-12)


@pytest.mark.parametrize("margin", [0.5, 8.0])
def test_its_gradient(margin):
    u = relaxed(seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: contrastive_loss(x, SIMILAR, margin), u)


@pytest.mark.parametrize("u", [relaxed(rows=1), torch.zeros(3, 4), torch.ones(3, 4)])
def test_degenerate_batches(u):
    u = u.clone().requires_grad_()
    value = contrastive_loss(u, torch.eye(len(u), dtype=u.dtype), 8.0)
    value.backward()
    assert value.item() == (0.0 if len(u) == 1 else 4.0)
    assert torch.isfinite(u.grad).all()


def test_training_minimises_the_published_objective(toy, monkeypatch):
    images, labels = toy
    seen = []

    def watch(u, similar, margin):
        seen.append((u.detach().clone(), similar, margin))
        return contrastive_loss(u, similar, margin)

    monkeypatch.setattr(dsh, "contrastive_loss", watch)
    victim = DSH(6, alpha=0.7, batch_size=96, epochs=2, autocast=False).fit(images, labels, progress=False)
    for loss, (u, similar, margin) in zip(victim.history, seen, strict=True):
        assert margin == 12.0 and similar.sum() == 3 * 32**2
        quantisation = (u.abs() - 1).abs().sum(1).mean()
        assert loss == pytest.approx((contrastive_loss(u, similar, margin) + 0.7 * quantisation).item(), rel=1e-5)

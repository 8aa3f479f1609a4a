"""pplkit.gradient_reversal: one backward pass through it is a simultaneous descent and ascent step."""

import math
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pplkit.gradient_reversal import reverse_gradient


def players(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module, Tensor]:
    """A tiny generator, a tiny surrogate, and a batch."""
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 5)).to(dtype)
    surrogate = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3), nn.Tanh()).to(dtype)
    return generator, surrogate, torch.randn(4, 5, dtype=dtype)


def shared_loss(codes: Tensor) -> Tensor:
    return (codes @ codes.T - 1).square().mean()


def contested_loss(clean: Tensor, adversarial: Tensor) -> Tensor:
    return (clean - adversarial).square().sum() + (clean @ adversarial.T).sin().mean()


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_forward_is_the_identity_and_backward_multiplies_by_minus_lambda(scale):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 4, dtype=torch.float64)
    y = reverse_gradient(x, scale)
    assert torch.equal(y, x) and y.shape == x.shape and y.dtype == x.dtype
    (y * weights).sum().backward()
    assert torch.equal(x.grad, -scale * weights)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_one_backward_equals_a_hand_written_ascent_and_descent_step(scale):
    generator, surrogate, x = players()
    z = x + generator(x)
    loss = shared_loss(surrogate(z)) + contested_loss(surrogate(x), surrogate(reverse_gradient(z, scale)))
    loss.backward()
    rate = 0.1
    ours = [p.detach() - rate * p.grad for network in (generator, surrogate) for p in network.parameters()]

    z = x + generator(x)
    shared, contested = shared_loss(surrogate(z)), contested_loss(surrogate(x), surrogate(z))
    by_hand = []
    for p in generator.parameters():  # descends on the shared loss, ascends on the contested one
        down, up = (torch.autograd.grad(term, p, retain_graph=True)[0] for term in (shared, contested))
        by_hand.append(p.detach() - rate * down + rate * scale * up)
    for p in surrogate.parameters():  # descends on both
        parts = [torch.autograd.grad(term, p, retain_graph=True)[0] for term in (shared, contested)]
        by_hand.append(p.detach() - rate * parts[0] - rate * parts[1])
    for found, expected in zip(ours, by_hand, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-14)


def test_reversed_twice_is_not_reversed():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    reverse_gradient(reverse_gradient(x, 2.0), 3.0).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 6.0))


def test_two_uses_of_one_tensor_add_up_and_the_unreversed_use_is_untouched():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    (2 * reverse_gradient(x).sum() + 3 * reverse_gradient(x, 0.5).sum() + 10 * x.sum()).backward()
    assert torch.equal(x.grad, torch.full_like(x, 10 - 2 - 1.5))


def test_second_derivatives_pass_through():
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(reverse_gradient(x, 0.5) ** 3, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    assert first.item() == pytest.approx(-0.5 * 3 * 4) and second.item() == pytest.approx(0.25 * 6 * 2)


def test_nothing_happens_without_a_gradient():
    x = torch.randn(3)
    assert torch.equal(reverse_gradient(x), x) and not reverse_gradient(x).requires_grad


def test_under_autocast_the_gradient_is_exactly_negated():
    def gradients(reverse: bool) -> list[Tensor]:
        generator, surrogate, x = players(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            z = generator(x)
            codes = surrogate(reverse_gradient(z) if reverse else z)
        assert codes.dtype == torch.bfloat16
        shared_loss(codes.float()).backward()
        return [p.grad for network in (generator, surrogate) for p in network.parameters()]

    plain, reversed_ = gradients(False), gradients(True)
    for i, (a, b) in enumerate(zip(plain, reversed_, strict=True)):
        assert torch.equal(b, -a if i < 4 else a)  # 4 tensors in the generator, the surrogate's are untouched
        assert a.abs().max() > 0


BUILDS = shutil.which("g++") and Path(sysconfig.get_paths()["include"], "Python.h").is_file()


@pytest.mark.parametrize("backend, rtol", [("eager", 1e-14), ("aot_eager", 1e-14), pytest.param("inductor", 1e-12, marks=(
    pytest.mark.skipif(not BUILDS, reason="to make machine code torch.compile needs g++ and Python's headers")))])
def test_under_torch_compile(backend, rtol):
    def loss(x: Tensor, w: Tensor) -> Tensor:
        return (reverse_gradient(x * w, 2.0).tanh() * w).sum()

    results = []
    for function in (loss, torch.compile(loss, backend=backend, fullgraph=True)):
        x = torch.linspace(-1, 1, 6, dtype=torch.float64).requires_grad_()
        w = torch.linspace(1, 2, 6, dtype=torch.float64).requires_grad_()
        value = function(x, w)
        value.backward()
        results.append((value.detach(), x.grad, w.grad))
    for eager, compiled in zip(*results, strict=True):
        assert torch.allclose(eager, compiled, rtol=rtol, atol=0)
    assert (results[0][1] < 0).all()


@pytest.mark.parametrize("scale", [-1.0, -1e-9, math.nan, math.inf, "1", None, True])
def test_a_scale_that_would_not_reverse_is_refused(scale):
    with pytest.raises(ValueError, match=rf"scale \(lambda\) must be a finite number of at least 0, got {scale!r};"):
        reverse_gradient(torch.ones(2), scale)

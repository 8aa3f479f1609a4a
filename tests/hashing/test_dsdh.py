"""DSDH: exact sub-problems, and a network that really feels the learned codes and the classifier."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from pplkit.hashing import DSDH, dsdh
from pplkit.hashing.dpsh import similar_pairs
from pplkit.hashing.dsdh import network_loss, update_classifier, update_codes


def problem(seed: int, n: int = 8, c: int = 4, classes: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random B (n, c), Y (n, L), W (c, L), U (n, c), in float64."""
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2, (n, c), generator=random).double() * 2 - 1
    targets = one_hot(torch.randint(0, classes, (n,), generator=random), classes).double()
    classifier = torch.randn(c, classes, generator=random, dtype=torch.float64)
    outputs = torch.tanh(torch.randn(n, c, generator=random, dtype=torch.float64))
    return codes, targets, classifier, outputs


def objective(codes: Tensor, targets: Tensor, classifier: Tensor, outputs: Tensor, ratio: float) -> float:
    """‖Y − BW‖² + (η/μ)‖B − U‖² by loops."""
    total = 0.0
    for i in range(len(codes)):
        for label in range(targets.shape[1]):
            fit = sum(codes[i, k].item() * classifier[k, label].item() for k in range(codes.shape[1]))
            total += (targets[i, label].item() - fit) ** 2
        total += ratio * sum((b - u) ** 2 for b, u in zip(codes[i].tolist(), outputs[i].tolist(), strict=True))
    return total


# ---- the classifier


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 5), st.floats(0.01, 100))
def test_the_classifier_is_the_minimiser(seed, n, c, ratio):
    codes, targets, _, _ = problem(seed, n, c)
    w = update_classifier(codes, targets, ratio).requires_grad_()
    ridge = (targets - codes @ w).square().sum() + ratio * w.square().sum()
    assert torch.autograd.grad(ridge, w)[0].abs().max() < 1e-8  # strictly convex: a stationary point is the minimum


def test_the_classifier_equals_the_printed_formula():
    codes, targets, _, _ = problem(seed=1)
    b, y = codes.T, targets.T  # the paper's matrices have images in columns
    expected = torch.linalg.inv(b @ b.T + 0.5 * torch.eye(4).double()) @ b @ y.T
    assert torch.allclose(update_classifier(codes, targets, 0.5), expected, rtol=0, atol=1e-12)


# ---- the codes


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 5), st.sampled_from([0.0, 0.3, 55.0]))
def test_a_sweep_never_raises_the_objective(seed, n, c, ratio):
    codes, targets, classifier, outputs = problem(seed, n, c)
    new = update_codes(codes, targets, classifier, outputs, ratio)
    assert set(new.unique().tolist()) <= {-1.0, 1.0}
    before, after = (objective(b, targets, classifier, outputs, ratio) for b in (codes, new))
    assert after <= before + 1e-9 * (1 + before)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 55.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_equals_trying_both_values_of_each_bit(seed, ratio):
    codes, targets, classifier, outputs = problem(seed, n=5, c=3)
    expected = codes.clone()
    for k in range(3):
        for i in range(5):
            values = {}
            for bit in (-1.0, 1.0):
                expected[i, k] = bit
                values[bit] = objective(expected, targets, classifier, outputs, ratio)
            expected[i, k] = min(values, key=values.get)
    before = codes.clone()
    assert torch.equal(update_codes(codes, targets, classifier, outputs, ratio), expected)
    assert torch.equal(codes, before)


def test_a_sweep_equals_the_formula_bit_by_bit():
    codes, targets, classifier, outputs = problem(seed=5)
    b, w = codes.T.clone(), classifier  # (c, n), (c, L)
    p = w @ targets.T + 0.3 * outputs.T
    for k in range(4):
        rest = [other for other in range(4) if other != k]
        b[k] = torch.sign(p[k] - w[k] @ w[rest].T @ b[rest])
    assert torch.equal(update_codes(codes, targets, classifier, outputs, 0.3), b.T)


def test_a_bit_that_does_not_matter_keeps_its_value():
    codes, targets, _, _ = problem(seed=6)
    assert torch.equal(update_codes(codes, targets, torch.zeros(4, 3).double(), torch.zeros(8, 4).double(), 1.0), codes)


# ---- the network


@pytest.mark.parametrize("eta", [0.0, 1.0, 55.0])
def test_the_networks_gradient_is_the_published_one(eta):
    """Σ_j (σ(θ_ij) − s_ij) u_j + 2η (u_i − b_i), and that is the gradient of the symmetric objective."""
    codes, targets, _, outputs = problem(seed=7)
    labels = targets.argmax(1)
    similar = similar_pairs(labels, labels).double()
    u = outputs.clone().requires_grad_()
    (ours,) = torch.autograd.grad(network_loss(u, outputs, similar, codes, eta), u)

    for i in range(8):
        expected = 2 * eta * (outputs[i] - codes[i])
        for j in range(8):
            theta = outputs[i] @ outputs[j] / 2
            expected = expected + (torch.sigmoid(theta) - similar[i, j]) * outputs[j]
        assert torch.allclose(ours[i], expected, rtol=0, atol=1e-12)

    theta = u @ u.T / 2
    symmetric = (torch.nn.functional.softplus(theta) - similar * theta).sum() + eta * (u - codes).square().sum()
    assert torch.allclose(ours, torch.autograd.grad(symmetric, u)[0], rtol=0, atol=1e-12)


def test_a_batch_sees_the_codes_of_its_own_images(toy, monkeypatch):
    images, labels = toy
    calls, sweeps = [], []
    original, original_sweep = network_loss, update_codes

    def watch(u, buffer, similar, codes, eta):
        calls.append((u.detach().clone(), buffer.clone(), similar.clone(), codes.clone(), eta))
        return original(u, buffer, similar, codes, eta)

    def watch_sweep(codes, targets, classifier, outputs, ratio):
        new = original_sweep(codes, targets, classifier, outputs, ratio)
        sweeps.append((new, targets, outputs.clone(), ratio))
        return new

    monkeypatch.setattr(dsdh, "network_loss", watch)
    monkeypatch.setattr(dsdh, "update_codes", watch_sweep)
    order = []
    permutation = DSDH._permutation
    monkeypatch.setattr(DSDH, "_permutation", lambda self, n: order.append(permutation(self, n)) or order[-1])
    settings = {"mu": 2.0, "eta": 6.0, "sweeps": 2, "epochs": 2, "batch_size": 40, "autocast": False}
    DSDH(4, **settings).fit(images, labels, progress=False)

    assert len(sweeps) == 4 and len(calls) == 6  # 2 sweeps per epoch; 96 images in batches of 40, 40, 16
    for epoch in range(2):
        codes, targets, outputs, ratio = sweeps[2 * epoch + 1]
        assert ratio == 3.0 and torch.equal(targets.argmax(1), labels)
        if epoch == 0:
            assert not outputs.any()
        for index, (u, buffer, similar, b, eta) in zip(order[epoch].split(40), calls[3 * epoch :][:3], strict=True):
            assert eta == 6.0 and torch.equal(b, codes[index]) and torch.equal(buffer[index], u)
            assert torch.equal(similar, (labels[index][:, None] == labels[None]).float())
    assert torch.equal(sweeps[2][2], calls[2][1])  # the second epoch's codes are solved for with the first one's outputs


@pytest.mark.parametrize("change", [{"eta": 2.0}, {"mu": 30.0}, {"nu": 1e4}])
def test_classification_and_quantisation_terms_reach_the_network(toy, change):
    """The trap of widely copied versions: these terms computed on detached tensors, so that B and W do nothing."""
    base = {"eta": 0.5, "epochs": 3, "batch_size": 32, "autocast": False}
    networks = [DSDH(6, **settings).fit(*toy, progress=False).network for settings in (base, base | change)]
    first, second = (torch.cat([p.detach().flatten() for p in network.parameters()]) for network in networks)
    assert (first - second).abs().max() > 1e-3

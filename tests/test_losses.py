"""pplkit.losses: each loss beside an explicit double loop in float64, its derivatives, degenerate batches."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pplkit import losses
from pplkit.losses import (
    PrivacyLoss,
    affinity_loss,
    cdd,
    gaussian_kernel,
    linear_kernel,
    matching_loss,
    mmd,
    multi_gaussian_kernel,
    similarity_loss,
    similarity_matrix,
    smmd,
    squared_distances,
)

KERNELS = {
    "multi-Gaussian": multi_gaussian_kernel(),
    "two factors": multi_gaussian_kernel((0.5, 3.0)),
    "Gaussian": gaussian_kernel(1.7),
    "linear": linear_kernel,
}
LABELS = {
    "classes": torch.tensor([0, 1, 0, 2, 1, 1]),
    "multi-label": torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0], [1, 0, 1]]),
}


def codes(
    batch: int = 6, bits: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Relaxed codes of clean images and of their adversarial counterparts."""
    random = torch.Generator().manual_seed(seed)
    return tuple(
        torch.tanh(torch.randn(batch, bits, generator=random, dtype=torch.float64)).to(dtype)
        for _ in range(2)
    )


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def distance(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def kernel_by_hand(name: str, clean: list, adversarial: list):
    """k(a, b) of two codes; the multi-Gaussian one looks at the joint batch for its bandwidths."""
    both = clean + adversarial
    mean = sum(distance(a, b) for a in both for b in both) / len(both) ** 2
    factors = {"multi-Gaussian": (0.25, 0.5, 1, 2, 4), "two factors": (0.5, 3.0)}.get(name)
    if factors:
        return lambda a, b: sum(math.exp(-distance(a, b) / (f * mean)) for f in factors) / len(factors)
    if name == "Gaussian":
        return lambda a, b: math.exp(-distance(a, b) / 1.7)
    return dot


# ---- similarity matrix


def shares_a_label(a: int | list[int], b: int | list[int]) -> bool:
    return a == b if isinstance(a, int) else any(x and y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("form", LABELS)
@pytest.mark.parametrize("two_sets", [False, True])
def test_similarity_matrix_equals_a_double_loop(form, balanced, two_sets):
    rows = LABELS[form].tolist()
    columns = LABELS[form][:4].flip(0).tolist() if two_sets else rows
    similar = [[shares_a_label(a, b) for b in columns] for a in rows]
    ones = sum(sum(row) for row in similar)
    r = ones / (len(rows) * len(columns) - ones) if balanced else 1.0
    expected = torch.tensor([[1.0 if s else -r for s in row] for row in similar], dtype=torch.float64)
    given = LABELS[form], torch.tensor(columns) if two_sets else None
    exact = similarity_matrix(*given, balanced=balanced, dtype=torch.float64)
    assert exact.dtype == torch.float64 and torch.allclose(exact, expected, rtol=0, atol=1e-10)
    many = similarity_matrix(torch.arange(512) % 4, balanced=True, dtype=torch.float16)  # counts beyond float16
    assert many.unique().tolist() == pytest.approx([-1 / 3, 1], rel=1e-3)
    usual = similarity_matrix(*given, balanced=balanced)
    assert usual.dtype == torch.float32 and torch.allclose(usual.double(), expected, rtol=1e-6, atol=0)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(lambda labels: len(set(labels)) > 1))
def test_a_balanced_similarity_matrix_sums_to_0(labels):
    s = similarity_matrix(torch.tensor(labels), balanced=True)
    assert s.double().sum().item() == pytest.approx(0, abs=1e-3)
    assert torch.equal(s, s.T) and torch.equal(s > 0, similarity_matrix(torch.tensor(labels)) > 0)


def test_one_class_gives_all_ones_balanced_or_not():
    for balanced in (False, True):
        assert torch.equal(similarity_matrix(torch.zeros(3).long(), balanced=balanced), torch.ones(3, 3))
        assert torch.equal(similarity_matrix(torch.tensor([7]), balanced=balanced), torch.ones(1, 1))


def test_one_hot_labels_give_the_matrix_of_their_classes():
    labels = LABELS["classes"]
    one_hot = torch.nn.functional.one_hot(labels)
    for form in (one_hot, one_hot.bool()):
        assert torch.equal(similarity_matrix(form, balanced=True), similarity_matrix(labels, balanced=True))


# ---- pair losses against loops


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("form", LABELS)
def test_pair_losses_equal_double_loops(form, balanced, reduction, scaled):
    clean, adversarial = codes()
    s = similarity_matrix(LABELS[form], balanced=balanced).double()
    n, c = clean.shape

    def by_hand(first: list, second: list) -> float:
        total = 0.0
        for i in range(n):
            for j in range(n):
                product = dot(first[i], second[j])
                residual = product / c - s[i, j].item() if scaled else product - c * s[i, j].item()
                total += residual**2
        return total / n**2 if reduction == "mean" else total

    how = {"reduction": reduction, "scaled": scaled}
    x, z = clean.tolist(), adversarial.tolist()
    assert affinity_loss(adversarial, s, **how).item() == pytest.approx(by_hand(z, z), abs=1e-10, rel=1e-12)
    assert similarity_loss(clean, adversarial, s, **how).item() == pytest.approx(
        by_hand(x, z), abs=1e-10, rel=1e-12
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_matching_loss_equals_a_loop(reduction):
    clean, adversarial = codes()
    total = sum(distance(x, z) for x, z in zip(clean.tolist(), adversarial.tolist(), strict=True))
    expected = total / len(clean) if reduction == "mean" else total
    assert matching_loss(clean, adversarial, reduction=reduction).item() == pytest.approx(expected, abs=1e-10)


def test_squared_distances_equal_loops():
    a, b = codes()[0], codes(batch=3, seed=1)[0]
    expected = [[distance(x, y) for y in b.tolist()] for x in a.tolist()]
    assert torch.allclose(
        squared_distances(a, b), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert (squared_distances(a.float(), a.float()) >= 0).all()


# ---- discrepancies against loops


def discrepancy_by_hand(x: list, z: list, weights: list[list[float]], k) -> float:
    """One D_s^•, eqs. (7), (8): 0 without a pair."""
    total = sum(map(sum, weights))
    if total == 0:
        return 0.0
    value = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            value += weights[i][j] / total * (k(x[i], x[j]) + k(z[i], z[j]) - 2 * k(x[i], z[j]))
    return value


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("form", LABELS)
def test_smmd_equals_double_loops(form, balanced, kernel):
    clean, adversarial = codes(seed=2)
    s = similarity_matrix(LABELS[form], balanced=balanced).double()
    x, z = clean.tolist(), adversarial.tolist()
    k = kernel_by_hand(kernel, x, z)
    positive = [[1.0 if value > 0 else 0.0 for value in row] for row in s.tolist()]
    negative = [[1.0 - value for value in row] for row in positive]
    expected = discrepancy_by_hand(x, z, positive, k) - discrepancy_by_hand(x, z, negative, k)
    assert smmd(clean, adversarial, s, KERNELS[kernel]).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_equals_double_loops(kernel):
    clean, adversarial = codes(seed=3)
    x, z = clean.tolist(), adversarial.tolist()
    expected = discrepancy_by_hand(x, z, [[1.0] * len(x)] * len(x), kernel_by_hand(kernel, x, z))
    assert mmd(clean, adversarial, KERNELS[kernel]).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_cdd_equals_loops_over_classes(kernel):
    clean, adversarial = codes(seed=4)
    labels = LABELS["classes"].tolist()
    x, z = clean.tolist(), adversarial.tolist()
    k = kernel_by_hand(kernel, x, z)

    def between(c: int, d: int) -> float:
        """MMD² of clean items of class c and adversarial items of class d."""
        xs = [a for a, label in zip(x, labels, strict=True) if label == c]
        zs = [b for b, label in zip(z, labels, strict=True) if label == d]

        def mean(first: list, second: list) -> float:
            return sum(k(a, b) for a in first for b in second) / (len(first) * len(second))

        return mean(xs, xs) + mean(zs, zs) - 2 * mean(xs, zs)

    classes = sorted(set(labels))
    m = len(classes)
    same = sum(between(c, c) for c in classes) / m
    different = sum(between(c, d) for c in classes for d in classes if c != d) / (m * (m - 1))
    found = cdd(clean, adversarial, LABELS["classes"], KERNELS[kernel])
    assert found.item() == pytest.approx(same - different, abs=1e-10)


def test_the_default_kernel_is_the_multi_gaussian_one():
    clean, adversarial = codes()
    s = similarity_matrix(LABELS["classes"])
    kernel = multi_gaussian_kernel((0.25, 0.5, 1.0, 2.0, 4.0))
    assert smmd(clean, adversarial, s) == smmd(clean, adversarial, s, kernel)
    assert mmd(clean, adversarial) == mmd(clean, adversarial, kernel)
    assert cdd(clean, adversarial, LABELS["classes"]) == cdd(clean, adversarial, LABELS["classes"], kernel)


def test_the_linear_kernel_gives_the_discrepancies_of_the_dot_product():
    clean, adversarial = codes(seed=5)
    s = similarity_matrix(LABELS["classes"])
    x_x, z_z, x_z = clean @ clean.T, adversarial @ adversarial.T, clean @ adversarial.T
    all_pairs = x_x + z_z - 2 * x_z
    expected = all_pairs[s > 0].mean() - all_pairs[s <= 0].mean()
    assert smmd(clean, adversarial, s, linear_kernel).item() == pytest.approx(expected.item(), abs=1e-12)
    assert mmd(clean, adversarial, linear_kernel).item() == pytest.approx(all_pairs.mean().item(), abs=1e-12)
    gap = clean.mean(0) - adversarial.mean(0)  # and MMD of the linear kernel is the distance of the means
    assert mmd(clean, adversarial, linear_kernel).item() == pytest.approx(
        gap.square().sum().item(), abs=1e-12
    )


@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(1.0, 10.0, 1.0), (0.5, 0.0, 2.0), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("how", [{}, {"reduction": "sum", "scaled": False}])
def test_privacy_loss_is_the_weighted_sum_of_its_terms(alpha, beta, gamma, how):
    clean, adversarial = codes(seed=6)
    s = similarity_matrix(LABELS["classes"], balanced=True)
    loss = PrivacyLoss(alpha, beta, gamma, gaussian_kernel(2.0), **how)
    reduction = {"reduction": how["reduction"]} if how else {}
    parts = {
        "domain": smmd(clean, adversarial, s, gaussian_kernel(2.0)),
        "similarity": similarity_loss(clean, adversarial, s, **how),
        "matching": matching_loss(clean, adversarial, **reduction),
    }
    assert loss.terms(clean, adversarial, s) == parts
    expected = alpha * parts["domain"] + beta * parts["similarity"] + gamma * parts["matching"]
    assert loss(clean, adversarial, s).item() == pytest.approx(expected.item(), rel=1e-14)


def test_privacy_loss_has_the_papers_weights_by_default():
    loss = PrivacyLoss()
    assert (loss.alpha, loss.beta, loss.gamma) == (1.0, 10.0, 1.0)


# ---- what the discrepancies mean


def test_mmd_is_blind_to_two_classes_swapped_across_domains_and_smmd_is_not():
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    centres = torch.tensor([[0.9, 0.9, -0.9, -0.9], [-0.9, -0.9, 0.9, 0.9]], dtype=torch.float64)
    clean = centres[labels] + 0.02 * torch.randn(40, 4, generator=random, dtype=torch.float64)
    swapped = centres[1 - labels] + 0.02 * torch.randn(40, 4, generator=random, dtype=torch.float64)
    s = similarity_matrix(labels)
    for kernel in KERNELS.values():
        blind, aware = mmd(clean, swapped, kernel).item(), smmd(clean, swapped, s, kernel).item()
        assert 0 <= blind < 1e-3 and aware > 0.5 and aware > 500 * blind
        assert cdd(clean, swapped, labels, kernel).item() > 0.5
        unmoved = smmd(clean, clean.flip(0).roll(1, 0), s, kernel).item()
        assert unmoved < 0.1 * aware


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 6), st.sampled_from(sorted(KERNELS)))
def test_mmd_is_never_negative_and_0_between_equal_batches(seed, batch, bits, kernel):
    clean, adversarial = codes(batch, bits, seed)
    assert mmd(clean, adversarial, KERNELS[kernel]).item() >= -1e-12
    assert mmd(clean, clean, KERNELS[kernel]).item() == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_losses_do_not_depend_on_the_order_of_the_images(seed, batch):
    clean, adversarial = codes(batch, 3, seed)
    labels = torch.arange(batch) % 3
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    loss = PrivacyLoss()
    s = similarity_matrix(labels, balanced=True)
    shuffled = similarity_matrix(labels[order], balanced=True)
    assert loss(clean, adversarial, s).item() == pytest.approx(
        loss(clean[order], adversarial[order], shuffled).item(), abs=1e-10
    )


# ---- derivatives


def frozen(kernel: str, clean: Tensor, adversarial: Tensor):
    """The kernel with its bandwidths fixed at this batch, which are constants to the gradient."""
    factors = {"multi-Gaussian": (0.25, 0.5, 1.0, 2.0, 4.0), "two factors": (0.5, 3.0)}.get(kernel)
    if factors is None:
        return KERNELS[kernel]
    both = torch.cat([clean, adversarial]).detach()
    mean = squared_distances(both, both).mean()
    return lambda distances: sum(torch.exp(-distances / (f * mean)) for f in factors) / len(factors)


DISCREPANCIES = {
    "smmd": lambda x, z, k: smmd(x, z, similarity_matrix(LABELS["classes"]), k),
    "mmd": mmd,
    "cdd": lambda x, z, k: cdd(x, z, LABELS["classes"], k),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", DISCREPANCIES)
def test_gradients_of_the_discrepancies(name, kernel):
    pair = [u.requires_grad_() for u in codes(bits=2, seed=7)]
    fixed = frozen(kernel, *pair)
    assert torch.autograd.gradcheck(lambda x, z: DISCREPANCIES[name](x, z, fixed), pair)
    ours = torch.autograd.grad(DISCREPANCIES[name](*pair, KERNELS[kernel]), pair)
    for found, expected in zip(
        ours, torch.autograd.grad(DISCREPANCIES[name](*pair, fixed), pair), strict=True
    ):
        assert torch.allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("how", [{}, {"reduction": "sum"}, {"scaled": False}])
def test_gradients_of_the_pair_losses(how):
    pair = [u.requires_grad_() for u in codes(bits=3, seed=8)]
    s = similarity_matrix(LABELS["multi-label"], balanced=True)
    assert torch.autograd.gradcheck(lambda x, z: similarity_loss(x, z, s, **how), pair)
    assert torch.autograd.gradcheck(lambda z: affinity_loss(z, s, **how), pair[1])
    if "scaled" not in how:
        assert torch.autograd.gradcheck(lambda x, z: matching_loss(x, z, **how), pair)


def test_gradient_of_the_privacy_loss():
    pair = [u.requires_grad_() for u in codes(bits=2, seed=9)]
    loss = PrivacyLoss(kernel=frozen("multi-Gaussian", *pair))
    assert torch.autograd.gradcheck(lambda x, z: loss(x, z, similarity_matrix(LABELS["classes"])), pair)


# ---- degenerate batches

DEGENERATE = {
    "one class": (codes(), torch.zeros(6).long()),
    "no similar pair but itself": (codes(), torch.arange(6)),
    "batch of 1": (codes(batch=1), torch.zeros(1).long()),
    "one bit": (codes(bits=1), LABELS["classes"]),
    "all codes equal": ((torch.full((6, 4), 0.3).double(),) * 2, LABELS["classes"]),
    "all codes equal within a domain": (
        (torch.full((6, 4), 0.3).double(), torch.full((6, 4), -0.9).double()),
        LABELS["classes"],
    ),
    "all codes 0": ((torch.zeros(6, 4).double(),) * 2, LABELS["classes"]),
    "no label at all": (codes(), torch.zeros(6, 3).long()),
    "saturated codes": (tuple(torch.sign(u) for u in codes()), LABELS["classes"]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_batches_give_finite_values_and_gradients(case, balanced, dtype):
    pair, labels = DEGENERATE[case]
    s = similarity_matrix(labels, balanced=balanced)
    calls = {
        "affinity": lambda x, z: affinity_loss(z, s) + 0 * x.sum(),
        "similarity": lambda x, z: similarity_loss(x, z, s),
        "matching": matching_loss,
        "privacy": lambda x, z: PrivacyLoss()(x, z, s),
    }
    for name, kernel in KERNELS.items():
        calls[f"mmd, {name}"] = lambda x, z, kernel=kernel: mmd(x, z, kernel)
        calls[f"smmd, {name}"] = lambda x, z, kernel=kernel: smmd(x, z, s, kernel)
        if labels.ndim == 1:
            calls[f"cdd, {name}"] = lambda x, z, kernel=kernel: cdd(x, z, labels, kernel)
    for name, call in calls.items():
        x, z = (u.to(dtype).clone().requires_grad_() for u in pair)
        value = call(x, z)
        value.backward()
        assert value.dtype == dtype and torch.isfinite(value), name
        assert torch.isfinite(x.grad).all() and torch.isfinite(z.grad).all(), name


@pytest.mark.parametrize("case", ["all codes equal", "all codes 0"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_collapsed_batch_has_no_discrepancy(case, kernel):
    (x, z), labels = DEGENERATE[case]
    s = similarity_matrix(labels)
    assert smmd(x, z, s, KERNELS[kernel]).item() == pytest.approx(0, abs=1e-12)
    assert mmd(x, z, KERNELS[kernel]).item() == pytest.approx(0, abs=1e-12)


def test_a_batch_without_dissimilar_pairs_keeps_only_the_similar_part():
    clean, adversarial = codes()
    one_class = torch.zeros(6).long()
    expected = mmd(clean, adversarial).item()
    assert smmd(clean, adversarial, similarity_matrix(one_class)).item() == pytest.approx(expected, abs=1e-14)
    assert cdd(clean, adversarial, one_class).item() == pytest.approx(expected, abs=1e-14)


# ---- bad input


def test_labels_of_two_forms_are_refused():
    classes, multi = LABELS["classes"], LABELS["multi-label"]
    for pair, found in (
        ((classes, multi), r"\(6,\) and \(6, 3\)"),
        ((multi, multi[:, :2]), r"\(6, 3\) and \(6, 2\)"),
        ((multi[None], None), r"\(1, 6, 3\)"),
    ):
        with pytest.raises(ValueError, match=rf"both be \(N,\) or both multi-hot \(N, L\), got {found}"):
            similarity_matrix(*pair)


def test_labels_that_are_none_are_refused():
    with pytest.raises(ValueError, match="labels must be a torch tensor, got list"):
        similarity_matrix([0, 1])


def test_shapes_that_do_not_fit_are_refused():
    clean, adversarial = codes()
    s = similarity_matrix(LABELS["classes"])
    with pytest.raises(ValueError, match=r"similarity must be \(6, 6\) for these codes, got \(5, 6\)"):
        affinity_loss(adversarial, s[:5])
    with pytest.raises(ValueError, match=r"similarity must be \(6, 6\) for these codes, got \(6, 5\)"):
        smmd(clean, adversarial, s[:, :5])
    for bits in ((4, 3), (0, 0)):
        with pytest.raises(ValueError, match=r"equal c of at least 1, got \(6, {}\) and \(6, {}\)".format(*bits)):
            similarity_loss(clean[:, : bits[0]], adversarial[:, : bits[1]], s)
    for call in (matching_loss, mmd, lambda x, z: cdd(x, z, LABELS["classes"])):
        with pytest.raises(ValueError, match=r"codes must be \(B, c\) twice, got \(6, 4\) and \(5, 4\)"):
            call(clean, adversarial[:5])
    with pytest.raises(ValueError, match=r"class labels of shape \(6,\), got \(6, 3\)"):
        cdd(clean, adversarial, LABELS["multi-label"])


@pytest.mark.parametrize("reduction", ["none", "Mean", None])
def test_unknown_reductions_are_refused(reduction):
    clean, adversarial = codes()
    s = similarity_matrix(LABELS["classes"])
    for call in (
        lambda: matching_loss(clean, adversarial, reduction=reduction),
        lambda: affinity_loss(adversarial, s, reduction=reduction),
    ):
        with pytest.raises(ValueError, match=f"reduction must be 'mean' or 'sum', got {reduction!r}"):
            call()


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", True])
def test_impossible_kernels_and_weights_are_refused(value):
    message = re.escape(f"must be positive and finite, got {value!r}")
    with pytest.raises(ValueError, match=f"bandwidth {message}"):
        gaussian_kernel(value)
    with pytest.raises(ValueError, match=f"each of factors {message}"):
        multi_gaussian_kernel((1.0, value))
    with pytest.raises(ValueError, match=f"floor {message}"):
        multi_gaussian_kernel(floor=value)
    with pytest.raises(ValueError, match="factors must be at least one"):
        multi_gaussian_kernel(())
    if value != 0:
        for name in ("alpha", "beta", "gamma"):
            with pytest.raises(ValueError, match=re.escape(f"{name} must be a number of at least 0 and finite, got {value!r}")):
                losses.PrivacyLoss(**{name: value})


@pytest.mark.parametrize("bits", [8, 64])
@pytest.mark.parametrize("spread", [1e-6, 1e-4, 1e-2])
def test_nearly_equal_codes_give_the_discrepancies_of_float64(bits, spread):
    """A surrogate on its way to collapse: without centring, float32 distances are the rounding errors of ‖a‖² ≈ c."""
    random = torch.Generator().manual_seed(0)
    base = 0.9 * torch.randn(bits, generator=random).sign()  # (c,)
    clean, adversarial = (base + spread * torch.randn(128, bits, generator=random) for _ in range(2))  # (B, c)
    labels = torch.arange(128) % 10
    s = similarity_matrix(labels)
    for discrepancy in (lambda x, z: smmd(x, z, s), mmd, lambda x, z: cdd(x, z, labels)):
        exact = discrepancy(clean.double(), adversarial.double()).item()
        assert discrepancy(clean, adversarial).item() == pytest.approx(exact, abs=1e-5)


def test_half_precision_does_not_overflow_in_the_mean():
    codes = torch.ones(512, 4, dtype=torch.float16)
    assert affinity_loss(codes, -torch.ones(512, 512)) == 4
    labels = torch.arange(512) % 4
    s = similarity_matrix(labels)
    x, z = (torch.where(labels[:, None] < 2, value, -value) * codes for value in (0.9, -0.5))
    for discrepancy in (lambda x, z: smmd(x, z, s), mmd, lambda x, z: cdd(x, z, labels)):
        exact = discrepancy(x.double(), z.double()).item()
        assert exact > 0.1 and discrepancy(x, z).item() == pytest.approx(exact, rel=1e-4)


def test_an_empty_batch_costs_nothing():
    nobody, no_pairs = torch.zeros(0, 4), torch.zeros(0, 0)
    for reduction in ("mean", "sum"):
        assert affinity_loss(nobody, no_pairs, reduction=reduction) == 0
        assert matching_loss(nobody, nobody, reduction=reduction) == 0
    assert smmd(nobody, nobody, no_pairs) == mmd(nobody, nobody) == cdd(nobody, nobody, torch.zeros(0).long()) == 0

"""ADSH: the closed forms beside explicit sums over all pairs, and code updates beside trying both values of each bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pplkit.hashing import ADSH, adsh
from pplkit.hashing.adsh import LabelGroups, asymmetric_loss, separate_codes, update_codes
from pplkit.hashing.network import sign
from pplkit.losses import similarity_matrix
from pplkit.retrieval import mean_average_precision

LABELS = {
    "classes": torch.tensor([2, 0, 1, 2, 2, 0, 5, 1, 0]),
    "one class": torch.zeros(9).long(),
    "multi-label": torch.tensor([[1, 0], [1, 1], [0, 1], [1, 0], [0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]),
}
OMEGA = torch.tensor([7, 2, 4, 0, 8])  # rows of V that the drawn images have


def objective(codes: Tensor, outputs: Tensor, similarity: Tensor, omega: Tensor, gamma: float) -> float:
    """‖UVᵀ − cS‖² + γ‖V_Ω − U‖² by loops."""
    c, total = codes.shape[1], 0.0
    for i, u in enumerate(outputs.tolist()):
        for j, v in enumerate(codes.tolist()):
            total += (sum(a * b for a, b in zip(u, v, strict=True)) - c * similarity[i, j].item()) ** 2
        total += gamma * sum((a - b) ** 2 for a, b in zip(codes[omega[i]].tolist(), u, strict=True))
    return total


def problem(seed: int, n: int = 9, m: int = 5, c: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random V (n, c), U (m, c), S (m, n), Ω (m,), in float64."""
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2, (n, c), generator=random).double() * 2 - 1
    outputs = torch.tanh(torch.randn(m, c, generator=random, dtype=torch.float64))
    labels = torch.randint(0, 3, (n,), generator=random)
    omega = torch.randperm(n, generator=random)[:m]
    return codes, outputs, similarity_matrix(labels[omega], labels, balanced=True).double(), omega


# ---- the network's loss


@pytest.mark.parametrize("gamma", [0.0, 3.0, 200.0])
def test_the_closed_form_equals_the_sum_over_all_pairs_with_its_gradient(gamma):
    codes, outputs, similarity, omega = problem(seed=1)
    u = outputs.clone().requires_grad_()
    constants = 4**2 * similarity.square().sum(1)
    closed = asymmetric_loss(u, codes[omega], codes.T @ codes, similarity @ codes, constants, gamma)
    gradient = torch.autograd.grad(closed, u)[0]

    pairs = (u @ codes.T - 4 * similarity).square().sum() + gamma * (codes[omega] - u).square().sum()
    assert closed.item() == pytest.approx(objective(codes, outputs, similarity, omega, gamma), rel=1e-12)
    assert torch.allclose(gradient, torch.autograd.grad(pairs, u)[0], rtol=0, atol=1e-10)
    assert torch.autograd.gradcheck(
        lambda x: asymmetric_loss(x, codes[omega], codes.T @ codes, similarity @ codes, constants, gamma), u
    )


# ---- code updates


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 6), st.sampled_from([0.0, 1.0, 200.0]))
def test_a_sweep_never_raises_the_objective(seed, n, c, gamma):
    codes, outputs, similarity, omega = problem(seed, n, max(1, n // 2), c)
    new = update_codes(codes, outputs, similarity.T @ outputs, omega, gamma)
    assert set(new.unique().tolist()) <= {-1.0, 1.0}
    before, after = (objective(v, outputs, similarity, omega, gamma) for v in (codes, new))
    assert after <= before + 1e-8 * (1 + before)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 200.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_equals_trying_both_values_of_each_bit(seed, gamma):
    codes, outputs, similarity, omega = problem(seed, n=6, m=4, c=3)
    expected = codes.clone()
    for k in range(3):
        for j in range(6):
            values = {}
            for bit in (-1.0, 1.0):
                expected[j, k] = bit
                values[bit] = objective(expected, outputs, similarity, omega, gamma)
            expected[j, k] = min(values, key=values.get)
    new = update_codes(codes, outputs, similarity.T @ outputs, omega, gamma)
    assert torch.equal(new, expected)


def test_a_sweep_equals_the_formula_column_by_column():
    codes, outputs, similarity, omega = problem(seed=9)
    n, c, gamma = *codes.shape, 7.0
    scattered = torch.zeros(n, c).double()
    scattered[omega] = outputs
    q = -2 * c * similarity.T @ outputs - 2 * gamma * scattered
    v = codes.clone()
    for k in range(c):
        rest = [other for other in range(c) if other != k]
        v[:, k] = -torch.sign(2 * v[:, rest] @ outputs[:, rest].T @ outputs[:, k] + q[:, k])
    before = codes.clone()
    assert torch.equal(update_codes(codes, outputs, similarity.T @ outputs, omega, gamma), v)
    assert torch.equal(codes, before)  # the argument is not written to


def test_a_bit_that_does_not_matter_keeps_its_value():
    codes = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    nothing = torch.zeros(1, 2)
    assert torch.equal(update_codes(codes, nothing, torch.zeros(2, 2), torch.tensor([0]), 1.0), codes)


# ---- the similarity matrix, kept per group of equal labels


@pytest.mark.parametrize("form", LABELS)
def test_groups_stand_for_the_whole_similarity_matrix(form):
    labels = LABELS[form]
    groups = LabelGroups(labels)
    whole = similarity_matrix(labels[OMEGA], labels, balanced=True)  # (m, n)
    compact = groups.similarity(OMEGA)
    expanded = torch.tensor([[compact[groups.index[i], groups.index[j]] for j in range(9)] for i in OMEGA])
    assert torch.allclose(expanded, whole, atol=1e-6)
    assert groups.counts.sum() == 9 and compact.shape == (len(groups.counts),) * 2

    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    sums = compact @ groups.sum(rows)  # row g: Σ_j S_gj v_j
    assert torch.allclose(sums[groups.index[OMEGA]], whole @ rows, atol=1e-5)
    squares = compact.square() @ groups.counts
    assert torch.allclose(squares[groups.index[OMEGA]], whole.square().sum(1), atol=1e-5)
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(groups.transposed_product(compact, outputs, OMEGA), whole.T @ outputs, atol=1e-5)


# ---- where V starts


@pytest.mark.parametrize("form", LABELS)
def test_v_starts_from_the_set_of_codes_that_fits_the_similarities_best(form):
    labels = LABELS[form]
    groups = LabelGroups(labels)
    similarity = similarity_matrix(labels, balanced=True)  # (n, n)
    random = torch.Generator().manual_seed(3)
    tried = [sign(torch.randn(len(groups.counts), 4, generator=random)).float() for _ in range(6)]  # (K, c) each

    def cost(codes: Tensor) -> float:  # over all pairs of images
        v = codes[groups.index]
        return (v @ v.T - 4 * similarity).square().sum().item()

    chosen = separate_codes(groups, 4, 6, torch.Generator().manual_seed(3))
    assert cost(chosen) == pytest.approx(min(map(cost, tried))) and any(torch.equal(chosen, codes) for codes in tried)


def test_ten_classes_get_ten_codes_of_eight_bits():
    groups = LabelGroups(torch.arange(10).repeat(5))
    for seed in range(5):
        codes = separate_codes(groups, 8, 1000, torch.Generator().manual_seed(seed))
        assert len(codes.unique(dim=0)) == 10


def test_starts_are_used_and_checked(toy):
    images, labels = toy
    fitted = [ADSH(4, starts=starts, outer_epochs=1, inner_epochs=1).fit(images, labels, progress=False)
              for starts in (None, 1, 50)]
    losses = [victim.history for victim in fitted]
    assert losses[0] != losses[1] != losses[2] != losses[0]
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match="starts must be a whole number of at least 1, got"):
            ADSH(4, starts=wrong)


# ---- training as a whole


@pytest.mark.parametrize("whole_database", [False, True])
def test_each_round_minimises_the_published_objective(toy, whole_database, monkeypatch):
    """With one batch per round the stored loss must be the double sum, and V's update must see the right U, S and Ω."""
    images, labels = toy
    index = torch.arange(5, 69) if whole_database else torch.arange(96)
    rounds = []

    def watch(codes, outputs, similarity_outputs, omega, gamma):
        rounds.append((codes.clone(), outputs.clone(), similarity_outputs.clone(), omega.clone(), gamma))
        return update_codes(codes, outputs, similarity_outputs, omega, gamma)

    monkeypatch.setattr(adsh, "update_codes", watch)
    settings = {"outer_epochs": 3, "inner_epochs": 1, "sample_size": 50, "batch_size": 50, "autocast": False}
    victim = ADSH(4, gamma=30.0, **settings)
    whole = {"database_labels": labels, "train_index": index} if whole_database else {}
    victim.fit(images[index], labels[index], **whole, progress=False)

    n = 96
    assert len(rounds) == len(victim.history) == 3
    for loss, (codes, outputs, similarity_outputs, omega, gamma) in zip(victim.history, rounds, strict=True):
        assert gamma == 30.0 and len(omega.unique()) == 50 and set(omega.tolist()) <= set(index.tolist())
        assert codes.shape == (n, 4) and set(codes.unique().tolist()) == {-1.0, 1.0}
        similarity = similarity_matrix(labels[omega], labels, balanced=True)
        assert torch.allclose(similarity_outputs, similarity.T @ outputs, atol=1e-3)
        pairs = (outputs @ codes.T - 4 * similarity).square().sum()
        near = (codes[omega] - outputs).square().sum()
        assert loss == pytest.approx(((pairs + gamma * near) / (n * 50)).item(), rel=1e-4)
    assert not torch.equal(rounds[0][3].sort().values, rounds[1][3].sort().values)  # Ω is drawn anew


def test_database_codes_are_learned_for_images_never_seen(toy):
    images, labels = toy
    index = torch.arange(0, 96, 2)
    victim = ADSH(8, outer_epochs=6, inner_epochs=2, batch_size=16)
    victim.fit(images[index], labels[index], database_labels=labels, train_index=index, progress=False)
    assert victim.database_codes.shape == (96, 8) and victim.database_codes.dtype == torch.int8
    assert set(victim.database_codes.unique().tolist()) == {-1, 1}
    found = mean_average_precision(victim.encode(images), labels, victim.database_codes, labels)
    assert found.expected > 0.9


def test_multi_label_database(multi_label_toy):
    images, labels = multi_label_toy
    index = torch.arange(64)
    victim = ADSH(6, outer_epochs=2, inner_epochs=1)
    victim.fit(images[index], labels[index], database_labels=labels, train_index=index, progress=False)
    assert victim.database_codes.shape == (96, 6)


# ---- bad input


def test_a_database_that_does_not_fit_the_training_images_is_refused(toy):
    images, labels = toy
    victim, index = ADSH(4, outer_epochs=1), torch.arange(40)
    some, their = images[:40], labels[:40]
    for alone in ({"database_labels": labels}, {"train_index": index}):
        with pytest.raises(ValueError, match="database_labels and train_index go together"):
            victim.fit(some, their, **alone, progress=False)
    fitted = victim.fit(some, their, database_labels=labels.int(), train_index=index, progress=False)
    assert fitted.database_codes.shape == (96, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.ones(40).bool(), r"train_index must be int64 positions \(40,\), .*, got torch.bool \(40,\)"),
        (torch.arange(40.0), r"train_index must be int64 positions \(40,\), .*, got torch.float32 \(40,\)"),
        (torch.arange(39), r"train_index must be int64 positions \(40,\), .*, got torch.int64 \(39,\)"),
        (list(range(40)), r"train_index must be int64 positions \(40,\), .*, got list"),
        (torch.arange(40) % 3, "train_index must name a position only once, got 0 more than once"),
        (torch.arange(60, 100), r"train_index must be positions in 0\.\.95, .*, got 96"),
        (torch.arange(-1, 39), r"train_index must be positions in 0\.\.95, .*, got -1"),
        (torch.arange(1, 41), r"labels differ from database_labels\[train_index\], first at 0: 0 is not 1;"),
    ],
)
def test_positions_that_are_not_the_training_images_are_refused(toy, wrong, message):
    images, labels = toy
    with pytest.raises(ValueError, match=message):
        ADSH(4).fit(images[:40], labels[:40], database_labels=labels, train_index=wrong, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels.index_fill(0, torch.tensor(90), -1), r"database_labels must be .* 0 and 1; got -1\.\.2"),
        (Tensor.float, r"database_labels must be integers .*, got torch.float32 \(96,\)"),
        (Tensor.tolist, r"database_labels must be integers .*, got list"),
        (torch.nn.functional.one_hot, r"labels \(40,\) and database_labels \(96, 3\) do not fit"),
    ],
)
def test_labels_that_no_database_has_are_refused(toy, change, message):
    images, labels = toy
    with pytest.raises(ValueError, match=message):
        ADSH(4).fit(images[:40], labels[:40], database_labels=change(labels), train_index=torch.arange(40), progress=False)


def test_the_first_differing_row_of_several_labels_is_quoted(multi_label_toy):
    images, labels = multi_label_toy
    index = torch.arange(40)
    index[[7, 8]] = index[[8, 7]]
    with pytest.raises(ValueError, match=r"first at 7: \[0, 1, 0, 1\] is not \[1, 0, 1, 0\]"):
        ADSH(4).fit(images[:40], labels[:40], database_labels=labels, train_index=index, progress=False)

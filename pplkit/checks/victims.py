"""Answer checks of notebook 02: balanced similarity, ADSH's closed form and bit step, DSDH's classifier and loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pplkit import losses
from pplkit.checks import call, check, compare, expect, expect_close, expect_tensor, gradient, show
from pplkit.hashing import dsdh
from pplkit.hashing.dpsh import similar_pairs


def _problem(n: int, m: int, c: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random V (n, c), U (m, c), balanced S (m, n), Ω (m,), float64."""
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2, (n, c), generator=random).double() * 2 - 1
    outputs = torch.tanh(torch.randn(m, c, generator=random, dtype=torch.float64))
    labels = torch.arange(n) % 3
    omega = torch.randperm(n, generator=random)[:m]
    return codes, outputs, losses.similarity_matrix(labels[omega], labels, balanced=True).double(), omega


@check
def similarity_matrix(function: Callable) -> str:
    """Balanced S of class labels."""
    random = torch.Generator().manual_seed(0)
    cases = [(torch.tensor(labels),) for labels in ([0, 0, 1, 2], [3, 1, 1, 1, 0], [0, 1])]
    cases += [(torch.randint(0, 10, (n,), generator=random),) for n in (20, 64)]

    def changed(dissimilar: Callable[[Tensor], Tensor | float]) -> Callable:
        """S with another value for dissimilar pairs, computed from the 0/1 matrix of similar pairs."""

        def build(labels: Tensor) -> Tensor:
            similar = (labels[:, None] == labels).float()  # (B, B)
            return similar + dissimilar(similar) * (1 - similar)

        return build

    def ratio(similar: Tensor) -> Tensor:
        return similar.sum() / (1 - similar).sum()

    compare(
        function,
        lambda labels: losses.similarity_matrix(labels, balanced=True),
        cases,
        mistakes=[
            (changed(lambda s: -1.0), "this is the literal S: dissimilar pairs must get -r, not -1"),
            (changed(lambda s: -1 / ratio(s)), "r is upside down: #similar / #dissimilar, so that the sum becomes 0"),
            (changed(ratio), "dissimilar pairs get -r, with a minus"),
            (changed(lambda s: -s.mean()), "r is a share of all pairs here; divide by the number of dissimilar pairs"),
            (
                changed(lambda s: -(s.sum() - len(s)) / (1 - s).sum()),
                "the pairs of an image with itself are similar pairs too; count the diagonal",
            ),
            (changed(lambda s: 0.0), "dissimilar pairs are 0 here; without a push apart all codes may become equal"),
            (
                lambda labels: -losses.similarity_matrix(labels, balanced=True),
                "the sign is flipped: similar pairs are +1",
            ),
        ],
    )
    return f"{len(cases)} label lists, each S sums to 0"


@check
def asymmetric_loss(function: Callable) -> str:
    """Per image, the sum of squared errors to all database codes, from VᵀV, SV and the sum of S²."""
    sizes = [(4, 2, 3), (9, 5, 4), (60, 12, 16)]
    for number, (n, m, c) in enumerate(sizes, start=1):
        codes, u, similarity, _ = _problem(n, m, c, seed=number)
        gram, targets, squares = codes.T @ codes, similarity @ codes, similarity.square().sum(1)  # (c, c), (m, c), (m,)
        case = f"case {number} of {len(sizes)}, n = {n}, b = {m}, c = {c}"
        right = (u @ codes.T - c * similarity).square().sum(1)  # (m,)
        square, cross = ((u @ gram) * u).sum(1), (u * targets).sum(1)  # (m,) each
        value = call(function, u, gram, targets, squares, case=case)
        expect_close(value, right, case=case, name="the losses", mistakes=[
            (right.sum(), "this is the sum over the batch; return one value per image, (b,)"),
            (square - c * cross + c**2 * squares, "the middle term lacks the 2 of (a - b)² = a² - 2ab + b²"),
            (square - 2 * cross + c**2 * squares, "the middle term lacks c: the target is c S, not S"),
            (square - 2 * c * cross + squares, "the last term lacks c²: (c S)² = c² S²"),
            (square - 2 * c * cross + c * squares, "the last term has c, but (c S)² = c² S²"),
            (square - 2 * c * cross, "the last term, c² Σ S², is missing: harmless for training, but it is not the loss"),
            (square + 2 * c * cross + c**2 * squares, "the middle term has the wrong sign"),
            (
                (u @ gram).square().sum(1) - 2 * c * cross + c**2 * squares,
                "the first term squares too much: u VᵀV uᵀ contains the Gram matrix once",
            ),
            (
                (u.square() @ gram.diagonal()) - 2 * c * cross + c**2 * squares,
                "the first term uses only the diagonal of VᵀV",
            ),
        ])  # fmt: skip
    return f"{len(sizes)} problems, equal to the sum over all pairs"


@check
def adsh_bit(function: Callable) -> str:
    """ADSH's exact update of one bit of all database codes."""
    gamma, checked = 3.0, 0
    for number, (n, m, c) in enumerate([(4, 2, 2), (9, 5, 4), (60, 12, 16)], start=1):
        codes, outputs, similarity, omega = _problem(n, m, c, seed=10 + number)
        linear = -2 * c * similarity.T @ outputs  # Q (n, c)
        linear[omega] -= 2 * gamma * outputs
        for k in sorted({0, c // 2, c - 1}):
            case = f"n = {n}, m = {m}, c = {c}, bit k = {k}"
            cross = (outputs.T @ outputs)[:, k]  # (c,)
            others = cross.clone()
            others[k] = 0
            argument = 2 * codes @ others + linear[:, k]  # (n,)
            column = call(function, codes, outputs, linear, k, case=case)
            column = expect_tensor(column, shape=(n,), case=case, name="the column")
            expect(column.dtype != torch.bool, f"{case}: the column is bool; bits are -1 or +1")
            wrong = column[column.abs() != 1]
            expect(len(wrong) == 0, f"{case}: the column contains {show(wrong[:1])}; bits are -1 or +1")
            expect_close(column, -argument.sign(), case=case, name="the column", mistakes=[
                (argument.sign(), "this is the column that makes the objective largest: mind the minus before sign"),
                (-(2 * codes @ cross + linear[:, k]).sign(), "bit k itself must stay out of V_\\k and U_\\k"),
                (-(codes @ others + linear[:, k]).sign(), "the first term lacks its factor 2"),
                (-(2 * codes @ others).sign(), "the linear term Q_k is missing: it holds the labels"),
                (-linear[:, k].sign(), "the other bits are missing: without them all bits would become equal"),
                (codes[:, k], "this is the old column"),
            ])  # fmt: skip
            checked += 1
    codes, outputs, linear = torch.ones(2, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0], [3.0, 1.0]])
    case = "n = 2, c = 2, bit k = 0, where the first image has coefficient 0"
    column = expect_tensor(call(function, codes, outputs, linear, 0, case=case), shape=(2,), case=case, name="the column")
    expect(
        column[0].abs() == 1,
        f"{case}: the column contains {show(column[:1])}; torch.sign(0) is 0, which is no bit. There -1 and +1 are equally "
        "good: keep the old one",
    )
    return f"{checked} columns, each the best of all possible ones"


@check
def update_classifier(function: Callable) -> str:
    """DSDH's W step: ridge regression of the labels on the codes."""
    cases = []
    for seed, (n, c, classes, mu, nu) in enumerate([(6, 2, 2, 1.0, 0.1), (12, 4, 3, 2.0, 3.0), (80, 8, 5, 0.5, 0.1)]):
        codes = _problem(n, 2, c, seed=20 + seed)[0]
        targets = torch.nn.functional.one_hot(torch.arange(n) % classes).double()  # Y (n, L)
        cases.append((codes, targets, mu, nu))

    def ridge(codes: Tensor, targets: Tensor, weight: float) -> Tensor:
        return torch.linalg.solve(codes.T @ codes + weight * torch.eye(codes.shape[1]).double(), codes.T @ targets)

    compare(
        function,
        lambda b, y, mu, nu: dsdh.update_classifier(b, y, nu / mu),
        cases,
        rtol=1e-6,
        mistakes=[
            (lambda b, y, mu, nu: dsdh.update_classifier(b, y, nu / mu).T, "this is W transposed; W is (c, L)"),
            (lambda b, y, mu, nu: ridge(b, y, mu / nu), "the ridge is upside down: ν/μ"),
            (lambda b, y, mu, nu: ridge(b, y, nu * mu), "the ridge is ν/μ: divide both terms of the objective by μ"),
            (lambda b, y, mu, nu: ridge(b, y, nu) if mu != 1 else b * 0, "the ridge lacks μ: it is ν/μ"),
            (lambda b, y, mu, nu: torch.linalg.lstsq(b, y).solution, "the ridge is missing: add (ν/μ) I"),
            (lambda b, y, mu, nu: b.T @ y, "BᵀY is only the right-hand side; solve the system"),
            (
                lambda b, y, mu, nu: torch.linalg.solve(b.T @ b + nu / mu, b.T @ y),
                "ν/μ was added to every entry; it belongs on the diagonal (torch.eye)",
            ),
        ],
    )
    return f"{len(cases)} classifiers, each where the gradient of the objective is 0"


@check
def dsdh_loss(function: Callable) -> str:
    """DSDH's loss for the network: its value, and above all its gradient."""
    cases = []
    for seed, (b, n, c, eta) in enumerate([(2, 3, 2, 1.0), (5, 12, 4, 0.5), (8, 40, 16, 55.0)]):
        random = torch.Generator().manual_seed(seed)
        u, buffer = (torch.tanh(torch.randn(size, c, generator=random)) for size in (b, n))
        codes = torch.randint(0, 2, (b, c), generator=random).float() * 2 - 1
        labels = torch.arange(n) % 3
        cases.append((u, buffer, similar_pairs(labels[:b], labels), codes, eta))
    for number, (u, buffer, similar, codes, eta) in enumerate(cases, start=1):
        case = f"case {number} of {len(cases)}, b = {len(u)}, n = {len(buffer)}, c = {u.shape[1]}, eta = {eta:g}"
        theta = u @ buffer.T / 2  # (b, n)
        pairs, quantisation = (softplus(theta) - similar * theta).sum(), (u - codes).square().sum()
        right = dsdh.network_loss(u, buffer, similar, codes, eta)
        leaf = u.clone().requires_grad_()
        value = call(function, leaf, buffer, similar, codes, eta, case=case)
        full = u @ buffer.T  # (b, n)
        expect_close(value, right, case=case, mistakes=[
            (pairs + eta * quantisation, "the pair term lacks its factor 2 for the other side of each pair"),
            (2 * pairs, "the quantisation term is missing"),
            (2 * pairs + quantisation, "the quantisation term lacks its weight η"),
            (2 * pairs - eta * quantisation, "the quantisation term has the wrong sign: it would drive u away from b"),
            (
                2 * (softplus(full) - similar * full).sum() + eta * quantisation,
                "θ is half the inner product: θ = ½ u·u'",
            ),
            (
                2 * (softplus(theta) + similar * theta).sum() + eta * quantisation,
                "similar pairs are pushed apart: the term is softplus(θ) - s θ",
            ),
            (
                2 * (softplus(theta) - similar * theta).mean() + eta * (u - codes).square().mean(),
                "these are means; the objective has sums",
            ),
            (2 * pairs + eta * (u - codes).square().mean(), "the quantisation term is a mean; the objective has sums"),
            (2 * pairs / theta.numel() + eta * quantisation, "the pair term is a mean; the objective has sums"),
            (
                2 * pairs + eta * (u - torch.where(u >= 0, 1.0, -1.0)).square().sum(),
                "the quantisation term uses sign(u) instead of the learned codes b",
            ),
        ])  # fmt: skip
        arrived = gradient(value, leaf, name="u", case=case)  # (b, c)
        wanted = (theta.sigmoid() - similar) @ buffer + 2 * eta * (u - codes)  # (b, c)
        expect_close(arrived, wanted, rtol=1e-3, atol=1e-4, case=case, name="the gradient", mistakes=[
            (
                (theta.sigmoid() - similar) @ buffer,
                "the value is right, but the quantisation term has no gradient, so η, B and W do nothing. Do not detach u",
            ),
            (
                2 * eta * (u - codes),
                "the value is right, but the pair term has no gradient: do not detach u there",
            ),
        ])  # fmt: skip
    return f"{len(cases)} batches, value and gradient"

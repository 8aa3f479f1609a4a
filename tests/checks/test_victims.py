"""Notebook 02's checks accept right answers and explain the typical wrong ones."""

import pytest
import torch
from torch.nn.functional import softplus

from pplkit import losses
from pplkit.checks import CheckFailed
from pplkit.checks import victims as check
from pplkit.hashing import dsdh


def stub(*_):
    raise NotImplementedError()


def explains(test, answer, words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        test(answer)


@pytest.mark.parametrize("name", ["similarity_matrix", "asymmetric_loss", "adsh_bit", "update_classifier", "dsdh_loss"])
def test_stub_is_not_implemented(name):
    explains(getattr(check, name), stub, "not implemented yet")


def similar(labels):
    return (labels[:, None] == labels).float()


class TestSimilarity:
    def test_right(self, capsys):
        check.similarity_matrix(lambda labels: losses.similarity_matrix(labels, balanced=True))
        assert "✓ similarity_matrix" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (losses.similarity_matrix, "literal S"),
            (lambda y: similar(y) - (1 - similar(y)).sum() / similar(y).sum() * (1 - similar(y)), "upside down"),
            (lambda y: similar(y) + similar(y).sum() / (1 - similar(y)).sum() * (1 - similar(y)), "with a minus"),
            (lambda y: similar(y) - similar(y).mean() * (1 - similar(y)), "share of all pairs"),
            (lambda y: similar(y) - (similar(y).sum() - len(y)) / (1 - similar(y)).sum() * (1 - similar(y)), "diagonal"),
            (similar, "push apart"),
            (lambda y: -losses.similarity_matrix(y, balanced=True), "sign is flipped"),
            (lambda y: y[:, None] == y, "bool"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.similarity_matrix, answer, words)


def terms(u, gram, targets):
    return ((u @ gram) * u).sum(1), u.shape[1] * (u * targets).sum(1), u.shape[1] ** 2


def closed(u, gram, targets, squares, middle=2.0, last=1.0):
    square, cross, c2 = terms(u, gram, targets)
    return square - middle * cross + last * c2 * squares


class TestAsymmetricLoss:
    def test_right(self, capsys):
        check.asymmetric_loss(closed)
        assert "✓ asymmetric_loss" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda *a: closed(*a).sum(), "one value per image|shape"),
            (lambda *a: closed(*a, middle=1), "lacks the 2"),
            (lambda *a: closed(*a, middle=2 / a[0].shape[1]), "lacks c"),
            (lambda *a: closed(*a, last=1 / a[0].shape[1] ** 2), "c² S²"),
            (lambda *a: closed(*a, last=1 / a[0].shape[1]), "c² S²"),
            (lambda *a: closed(*a, last=0), "is missing"),
            (lambda *a: closed(*a, middle=-2), "wrong sign"),
            (lambda u, g, t, s: (u @ g).square().sum(1) - terms(u, g, t)[0] + closed(u, g, t, s), "squares too much"),
            (lambda u, g, t, s: u.square() @ g.diagonal() - terms(u, g, t)[0] + closed(u, g, t, s), "only the diagonal"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.asymmetric_loss, answer, words)


def bit(codes, outputs, linear, k, *, factor=2, keep=False, sign=-1, q=1):
    others = (outputs.T @ outputs)[:, k].clone()
    if not keep:
        others[k] = 0
    argument = factor * codes @ others + q * linear[:, k]
    return torch.where(argument == 0, codes[:, k], sign * argument.sign())


class TestAdshBit:
    def test_right(self, capsys):
        check.adsh_bit(bit)
        assert "✓ adsh_bit" in capsys.readouterr().out

    def test_the_reference_is_the_best_of_all_columns(self):
        codes, outputs, similarity, omega = check._problem(6, 3, 4, seed=0)
        linear = -8 * similarity.T @ outputs
        linear[omega] -= 2 * 3.0 * outputs
        best = None
        for number in range(64):
            column = torch.tensor([1.0 if number >> i & 1 else -1.0 for i in range(6)]).double()
            tried = codes.clone()
            tried[:, 1] = column
            value = (outputs @ tried.T - 4 * similarity).square().sum() + 3 * (tried[omega] - outputs).square().sum()
            best = min(best or (value, column), (value, column), key=lambda pair: float(pair[0]))
        assert torch.equal(best[1], bit(codes, outputs, linear, 1))

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda *a: bit(*a, sign=1), "minus before sign"),
            (lambda *a: bit(*a, keep=True), "stay out"),
            (lambda *a: bit(*a, factor=1), "factor 2"),
            (lambda *a: bit(*a, q=0), "holds the labels"),
            (lambda *a: bit(*a, factor=0), "other bits are missing"),
            (lambda v, u, q, k: v[:, k], "old column"),
            (lambda v, u, q, k: torch.tanh(q[:, k]), "bits are -1 or"),
            (lambda v, u, q, k: v, "shape"),
            (lambda v, u, q, k: v[:, k].copy_(bit(v, u, q, k)), "in place"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.adsh_bit, answer, words)


def ridge(b, y, weight):
    return torch.linalg.solve(b.T @ b + weight * torch.eye(b.shape[1]).double(), b.T @ y)


class TestClassifier:
    def test_right(self, capsys):
        check.update_classifier(lambda b, y, mu, nu: ridge(b, y, nu / mu))
        assert "✓ update_classifier" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda b, y, mu, nu: ridge(b, y, nu / mu).T, "shape|transposed"),
            (lambda b, y, mu, nu: ridge(b, y, mu / nu), "upside down"),
            (lambda b, y, mu, nu: ridge(b, y, nu * mu), "divide both terms"),
            (lambda b, y, mu, nu: ridge(b, y, nu), "ν/μ"),
            (lambda b, y, mu, nu: torch.linalg.lstsq(b, y).solution, "ridge is missing"),
            (lambda b, y, mu, nu: b.T @ y, "right-hand side"),
            (lambda b, y, mu, nu: torch.linalg.solve(b.T @ b + nu / mu, b.T @ y), "diagonal"),
            (lambda b, y, mu, nu: torch.linalg.solve(b @ b.T, y), "raised|shape"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.update_classifier, answer, words)


def loss(u, buffer, s, codes, eta, *, factor=2, half=0.5, flip=-1, near=None, pairs_from=None, weight=None):
    theta = half * (u if pairs_from is None else pairs_from) @ buffer.T
    pairs = (softplus(theta) + flip * s * theta).sum()
    return factor * pairs + (eta if weight is None else weight) * ((u if near is None else near) - codes).square().sum()


class TestDsdhLoss:
    def test_right(self, capsys):
        check.dsdh_loss(loss)
        check.dsdh_loss(dsdh.network_loss)
        assert capsys.readouterr().out.count("✓ dsdh_loss") == 2

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda *a: loss(*a, factor=1), "factor 2"),
            (lambda *a: loss(*a, weight=0), "quantisation term is missing"),
            (lambda *a: loss(*a[:4], -a[4]), "wrong sign"),
            (lambda *a: loss(*a, half=1), "half the inner product"),
            (lambda *a: loss(*a, flip=1), "pushed apart"),
            (lambda *a: loss(*a, near=a[0].detach()), "η, B and W do nothing"),
            (lambda *a: loss(*a, pairs_from=a[0].detach()), "pair term has no gradient"),
            (lambda *a: loss(a[0].detach(), *a[1:]), "no gradient reaches u"),
            (lambda *a: loss(*a).item(), "no gradient reaches u"),
            (lambda u, v, s, b, eta: loss(u, v, s, torch.where(u >= 0, 1.0, -1.0), eta), "instead of the learned"),
            (lambda u, v, s, b, eta: loss(u, v, s, b, eta, weight=1.0), "weight η"),
        ],
    )
    def test_wrong(self, answer, words):
        explains(check.dsdh_loss, answer, words)

"""Checks of notebook 06: right answers pass, typical wrong ones are told what is wrong."""

import pytest
import torch

from pplkit.checks import CheckFailed
from pplkit.checks import discrepancy as check


def mmd(a, b, ab):
    return a.mean() + b.mean() - 2 * ab.mean()


def off_diagonal(k):
    return k[~torch.eye(len(k), dtype=torch.bool)].mean()


def statistics(kernel, assignments):
    half = len(kernel) // 2

    def statistic(first):
        a, b = first.nonzero()[:, 0], (~first).nonzero()[:, 0]
        return mmd(kernel[a][:, a], kernel[b][:, b], kernel[a][:, b])

    observed = statistic(torch.arange(2 * half) < half)
    return observed, torch.stack([statistic(row) for row in assignments])


def p_value(kernel, assignments):
    observed, permuted = statistics(kernel, assignments)
    return (1 + int((permuted >= observed).sum())) / (1 + len(permuted))


def p_vectorised(kernel, assignments):
    n = len(kernel) // 2
    sides = torch.cat([(torch.arange(2 * n) < n)[None], assignments]).to(kernel) * 2 - 1
    values = torch.einsum("pi,ij,pj->p", sides / n, kernel, sides / n)
    return (values >= values[0]).double().mean()


def p(count, plus):
    def answer(kernel, assignments):
        observed, permuted = statistics(kernel, assignments)
        return (plus + int(count(permuted, observed).sum())) / (plus + len(permuted))

    return answer


def combine(join, cross=2.0, normalise=lambda mask: max(float(mask.sum()), 1.0), masks=None):
    def answer(a, b, ab, similarity):
        similar = (similarity > 0).double()
        pair = masks(similarity) if masks else (similar, 1 - similar)
        return join(*(((a + b - cross * ab) * mask).sum() / normalise(mask) for mask in pair))

    return answer


def minus(a, b):
    return a - b


def sixteen():
    clean = torch.zeros(10, 2)
    protected = clean.clone()
    protected[:3] = protected[9] = 1.0
    return clean, protected, torch.tensor([0] * 9 + [1])


RIGHT = {
    "mmd_from_kernels": [mmd],
    "permutation_p_value": [p_value, p_vectorised],
    "smmd": [combine(minus)],
    "negative_batch": [sixteen],
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


def batch(clean, protected, labels):
    return lambda: (torch.tensor(clean), torch.tensor(protected), torch.tensor(labels))


LINE = [[0.0], [0.5], [1.0]]
WRONG = [
    ("mmd_from_kernels", lambda a, b, ab: a.mean() + b.mean() - ab.mean(), "it counts twice"),
    ("mmd_from_kernels", lambda a, b, ab: a.mean() + b.mean() + 2 * ab.mean(), "for equal clouds the result must be 0"),
    ("mmd_from_kernels", lambda a, b, ab: a.sum() + b.sum() - 2 * ab.sum(), "These are sums"),
    ("mmd_from_kernels", lambda a, b, ab: mmd(a, b, ab).sqrt(), "its square is asked for"),
    ("mmd_from_kernels", lambda a, b, ab: off_diagonal(a) + off_diagonal(b) - 2 * ab.mean(), "diagonals are left out"),
    ("mmd_from_kernels", lambda a, b, ab: (a.sum() + b.sum() - 2 * ab.sum()) / len(a) ** 2, "its own number of pairs"),
    ("permutation_p_value", p(lambda t, o: t >= o, 0), "or p can become 0"),
    ("permutation_p_value", p(lambda t, o: t > o, 1), "Permutations that tie"),
    ("permutation_p_value", p(lambda t, o: t > o, 0), "Ties count as at least as large"),
    ("permutation_p_value", p(lambda t, o: t <= o, 1), "counts the smaller statistics"),
    ("permutation_p_value", p(lambda t, o: t >= o, 2), "counted twice"),
    ("permutation_p_value", lambda k, a: 1 - p_value(k, a), "This is 1 - p"),
    ("smmd", combine(minus, masks=lambda s: (torch.ones_like(s),) * 2), "you dropped the similarity mask"),
    ("smmd", lambda a, b, ab, s: mmd(a, b, ab), "dropped the similarity mask"),
    ("smmd", combine(lambda a, b: a + b), "The two parts are added"),
    ("smmd", combine(lambda a, b: b - a), "sign is the other way round"),
    ("smmd", combine(lambda a, b: a), r"D_s\+ alone"),
    ("smmd", combine(lambda a, b: -b), "-D_s- alone"),
    ("smmd", combine(minus, cross=1.0), "factor 2 of the cross term"),
    ("smmd", combine(minus, cross=-2.0), "The cross term is added"),
    ("smmd", combine(minus, normalise=lambda mask: 1.0), "These are sums"),
    ("smmd", combine(minus, normalise=lambda mask: mask.numel()), "number of all pairs"),
    ("smmd", combine(minus, normalise=lambda mask: mask.sum()), "you divide by it; such a batch contributes 0"),
    ("smmd", lambda a, b, ab, s: ((a + b - 2 * ab) * s).sum() / s.numel(), "number of all pairs"),
    ("smmd", lambda a, b, ab, s: ((a + b - 2 * ab) * s).sum(), "These are sums"),
    ("smmd", combine(minus, masks=lambda s: ((s > 0).double(), (s == -1).double())), "looked for with S == -1"),
    ("negative_batch", batch(LINE, LINE, [0, 0, 1]), "nothing has moved"),
    ("negative_batch", batch(LINE, [[1.0], [0.0], [0.5]], [0, 0, 0]), "no dissimilar pair"),
    ("negative_batch", batch(LINE, [[1.0], [0.0], [0.5]], [0, 1, 2]), "D_s is a variance"),
    ("negative_batch", batch(LINE, [[1.0], [1.0], [0.0]], [0, 0, 1]), "not negative yet"),
    ("negative_batch", batch(LINE, [[2.0], [1.0], [0.0]], [0, 0, 1]), "yours go up to 2.00"),
    ("negative_batch", batch(LINE, LINE, [0.0, 0.0, 1.0]), "int64 is needed"),
    ("negative_batch", lambda: torch.zeros(3, 2), "return three things"),
]


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_are_explained(name, answer, message):
    with pytest.raises(CheckFailed, match=message):
        getattr(check, name)(answer)


def test_the_mask_is_asked_for_before_anything_else():
    with pytest.raises(CheckFailed, match="^two classes that have swapped places: your D_s is 0 for swapped classes"):
        check.smmd(lambda a, b, ab, s: mmd(a, b, ab) - mmd(a, b, ab))

"""Checks of notebook 11: right answers pass, typical wrong ones are told what is wrong."""

import pytest
import torch

from pplkit.checks import CheckFailed
from pplkit.checks import transfer as check


def arrives(a, b):
    return (a.sign() @ b) / b.abs().sum()


def drop(within, across, chance):
    return (within - across) / (within - chance)


def chance(query_labels, database_labels):
    return sum(int((database_labels == label).sum()) for label in query_labels.tolist()) / (
        len(query_labels) * len(database_labels))  # fmt: skip


RIGHT = [
    (check.share_that_arrives, arrives),
    (check.share_that_arrives, lambda a, b: (torch.where(a > 0, b, -b)).sum().item() / b.abs().sum().item()),
    (check.relative_drop, drop),
    (check.relative_drop, lambda w, a, c: 1 - (a - c) / (w - c)),
    (check.chance_level, chance),
    (check.chance_level, lambda q, d: (q[:, None] == d).float().mean(1).mean()),
]


@pytest.mark.parametrize("checked, answer", RIGHT)
def test_right_answers_pass(checked, answer, capsys):
    checked(answer)
    assert capsys.readouterr().out.startswith(f"✓ {checked.__name__}: ")


WRONG = [
    (check.share_that_arrives, lambda a, b: -arrives(a, b), "sign is wrong"),
    (check.share_that_arrives, lambda a, b: arrives(b, a), "swapped"),
    (check.share_that_arrives, lambda a, b: a @ b / (a.norm() * b.norm()), "cosine"),
    (check.share_that_arrives, lambda a, b: a @ b / b.abs().sum(), "moves along sign(a)"),
    (check.share_that_arrives, lambda a, b: a.sign() @ b, "push itself"),
    (check.share_that_arrives, lambda a, b: (a.sign() * b).mean(), "number of pixels"),
    (check.share_that_arrives, lambda a, b: (a.sign() == b.sign()).float().mean(), "counts pixels"),
    (check.share_that_arrives, lambda a, b: a.sign() @ b / b.norm(), "Euclidean"),
    (check.share_that_arrives, lambda a, b: arrives(a, b).abs(), "sign is lost"),
    (check.relative_drop, lambda w, a, c: (w - a) / w, "the paper's drop"),
    (check.relative_drop, lambda w, a, c: w - a, "absolute"),
    (check.relative_drop, lambda w, a, c: (a - c) / (w - c), "what is left; the drop is 1 minus"),
    (check.relative_drop, lambda w, a, c: a / w, "what is left, without chance"),
    (check.relative_drop, lambda w, a, c: (w - a - c) / (w - c), "chance cancels"),
    (check.relative_drop, lambda w, a, c: (w - a - c) / w, "belongs in the denominator"),
    (check.relative_drop, lambda w, a, c: min(1.0, max(0.0, drop(w, a, c))), "do not clip"),
    (check.relative_drop, lambda w, a, c: min(1.0, drop(w, a, c)), "do not clip"),
    (check.relative_drop, lambda w, a, c: max(0.0, drop(w, a, c)), "do not clip"),
    (check.relative_drop, lambda w, a, c: 100 * drop(w, a, c), "not percent"),
    (check.relative_drop, lambda w, a, c: -drop(w, a, c), "sign is wrong"),
    (check.chance_level, lambda q, d: 1 / len(d.unique()), "equally large"),
    (check.chance_level, lambda q, d: chance(d, d), "within the database"),
    (check.chance_level, lambda q, d: 1 - chance(q, d), "irrelevant"),
]  # fmt: skip


@pytest.mark.parametrize("checked, answer, told", WRONG)
def test_typical_mistakes_are_explained(checked, answer, told):
    with pytest.raises(CheckFailed) as failed:
        checked(answer)
    assert told.lower() in str(failed.value).lower()


@pytest.mark.parametrize("checked", [check.share_that_arrives, check.relative_drop, check.chance_level])
def test_the_stub_fails(checked):
    def stub(*args):
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="not implemented yet"):
        checked(stub)

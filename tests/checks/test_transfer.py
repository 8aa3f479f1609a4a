"""Checks of notebook 11: right answers pass, typical wrong ones are told what is wrong."""

import pytest
import torch

from pplkit.checks import CheckFailed
from pplkit.checks import transfer as check


def misleading(victim):
    surrogate = -1e-4 * victim
    surrogate[victim.abs().argmax()] = victim[victim.abs().argmax()]
    return surrogate


def drop(within, across, chance):
    return (within - across) / (within - chance)


def chance(query_labels, database_labels):
    return sum(int((database_labels == label).sum()) for label in query_labels.tolist()) / (
        len(query_labels) * len(database_labels))  # fmt: skip


RIGHT = [
    (check.misleading_surrogate, misleading),
    (check.misleading_surrogate, lambda b: torch.where(b.abs() == b.abs().max(), 5 * b, -0.2 * b).double()),
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
    (check.misleading_surrogate, lambda b: b, "it looks alike (cosine 1.00), but a share of 1.00 arrives"),
    (check.misleading_surrogate, lambda b: -b, "the cosine is -1.00, at least 0.7"),
    (check.misleading_surrogate, lambda b: b.sign(), "begin with the victim's own weights"),
    (check.misleading_surrogate, torch.zeros_like, "the cosine is 0.00"),
    (check.misleading_surrogate, lambda b: torch.where(b.abs() == b.abs().max(), b, 0 * b), "push them the wrong way"),
    (check.misleading_surrogate, lambda b: b[None], "it must be (13,)"),
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


@pytest.mark.parametrize("checked", [check.misleading_surrogate, check.relative_drop, check.chance_level])
def test_the_stub_fails(checked):
    def stub(*args):
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="not implemented yet"):
        checked(stub)

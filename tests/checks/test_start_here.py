"""Checks of notebook 00: right answers pass, each typical mistake is told apart."""

import math

import pytest
import torch

from pplkit.checks import CheckFailed, start_here

MISTAKES = {
    start_here.flipped_bits: [
        (lambda a, b: (a == b).sum(), "equal bits"),
        (lambda a, b: a @ b, "inner product"),
        (lambda a, b: (a - b).abs().sum(), "counts 2"),
        (lambda a, b: (a != b).float().mean(), "the share of bits"),
        (lambda a, b: a.sub_(b).abs().sum() / 2, "changed its input"),
        (lambda a, b: a != b, "has shape"),
        (lambda a, b: None, "return"),
    ],
    start_here.scenario_name: [
        (lambda q, d: ("A" if d else "C") + "->" + ("A" if q else "C"), "are swapped"),
        (lambda q, d: ("C" if q else "A") + "->" + ("C" if d else "A"), "not the other way round"),
        (lambda q, d: ("A" if q else "C") + "-" + ("A" if d else "C"), "typed as - and >"),
        (lambda q, d: ("A" if q else "C") + "→" + ("A" if d else "C"), "typed as - and >"),
        (lambda q, d: "C->C", "query clean, database protected: got 'C->C', expected 'C->A'"),
    ],
    start_here.grey_levels: [
        (lambda e: e * 255, "whole number"),
        (lambda e: e * 256, "not 256"),
        (lambda e: round(e * 255), "exceed the budget"),
        (lambda e: math.ceil(e * 255), "exceed"),
        (lambda e: e, "scale 0 to 1"),
    ],
}


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (start_here.flipped_bits, lambda a, b: (a != b).sum()),
        (
            start_here.flipped_bits,
            lambda a, b: sum(x != y for x, y in zip(a.tolist(), b.tolist(), strict=True)),
        ),
        (start_here.flipped_bits, lambda a, b: (len(a) - a @ b) / 2),
        (start_here.scenario_name, lambda q, d: ("A" if q else "C") + "->" + ("A" if d else "C")),
        (start_here.grey_levels, lambda e: math.floor(e * 255)),
        (start_here.grey_levels, lambda e: torch.tensor(e * 255).floor()),
    ],
)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith(f"✓ {check.__name__}: ")


@pytest.mark.parametrize(
    ("check", "answer", "words"), [(check, *pair) for check, pairs in MISTAKES.items() for pair in pairs]
)
def test_mistakes_are_named(check, answer, words):
    with pytest.raises(CheckFailed, match=words):
        check(answer)

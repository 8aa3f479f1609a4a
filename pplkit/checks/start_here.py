"""Checks of notebook 00: counting bits, naming scenarios, ε in grey levels."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pplkit import budget
from pplkit.checks import call, check, compare, expect_close
from pplkit.retrieval import hamming_distance
from pplkit.scenarios import SCENARIOS


@check
def flipped_bits(function: Callable) -> str:
    """flipped_bits(before, after): number of differing bits of two codes, (c,) in {-1, +1}."""
    random = torch.Generator().manual_seed(0)
    draw = torch.randint(0, 2, (5, 2, 16), generator=random) * 2 - 1  # (5, 2, c)
    cases = [
        (torch.tensor([1, -1, 1, 1, -1]), torch.tensor([1, 1, 1, 1, -1])),  # each mistake gives another number
        (torch.tensor([1, -1, 1]), torch.tensor([1, -1, 1])),
        (torch.tensor([1, 1, 1, 1, -1, 1, -1]), torch.tensor([-1, -1, -1, -1, 1, 1, -1])),
        *((before, after) for before, after in draw),
    ]
    compare(
        function,
        lambda before, after: int(hamming_distance(before[None], after[None])),
        cases,
        mistakes=[
            (lambda a, b: int((a == b).sum()), "these are the equal bits; the flipped ones are asked for"),
            (lambda a, b: int(a @ b), "this is the inner product, equal minus different bits"),
            (lambda a, b: int((a - b).abs().sum()), "every flipped bit counts 2 here, from -1 to +1"),
            *((lambda a, b, f=f: f((a - b).sum()), "differences of opposite sign cancel here")
              for f in (int, lambda d: int(d) / 2, lambda d: abs(int(d)) / 2)),
            (lambda a, b: float((a != b).float().mean()), "this is the share of bits, not their number"),
            (lambda a, b: bool((a != b).any()), "this only says whether any bit flipped, not how many"),
        ],
    )
    return f"{len(cases)} pairs of codes"


@check
def scenario_name(function: Callable) -> str:
    """scenario_name(query_protected, database_protected): "C->C", "C->A", "A->C" or "A->A"."""
    expected = dict(zip([(False, False), (False, True), (True, False), (True, True)], SCENARIOS, strict=True))
    for (query, database), name in expected.items():
        case = f"query {_domain(query)}, database {_domain(database)}"
        swapped, opposite = expected[database, query], expected[not query, not database]
        expect_close(
            call(function, query, database, case=case),
            name,
            case=case,
            mistakes=[
                (name.replace("->", "→"), "the arrow is typed as - and >"),
                (name.replace("->", "-"), "the arrow is typed as - and >"),
                (swapped, "query and database are swapped; a name is read query->database"),
                (opposite, "C is clean and A is adversarial (protected), not the other way round"),
            ],
        )
    return "all four scenarios"


def _domain(protected: bool) -> str:
    return "protected" if protected else "clean"


@check
def grey_levels(function: Callable) -> str:
    """grey_levels(epsilon): the most by which a published uint8 pixel may differ, in whole grey levels."""
    cases = [(0.3,), (0.1,), (0.032,), (0.0,), (0.5,), (1.0,)]
    compare(
        function,
        _largest_change,
        cases,
        mistakes=[
            (lambda epsilon: epsilon * 255, "a stored pixel is a whole number from 0 to 255"),
            (lambda epsilon: epsilon * 256, "white is 255, not 256, and a stored pixel is a whole number"),
            (lambda epsilon: int(epsilon * 256), "white is 255, not 256"),
            (lambda epsilon: round(epsilon * 255), "rounding to the nearest level can exceed the budget"),
            (lambda epsilon: int(epsilon * 255 + 0.5), "rounding half a level up exceeds the budget"),
            (lambda epsilon: int(epsilon * 255) + 1, "rounding up exceeds the budget"),
            (lambda epsilon: epsilon, "ε is measured on the scale 0 to 1; stored pixels run from 0 to 255"),
        ],
    )
    return f"{len(cases)} budgets from 0 to 1, the paper's among them"


def _largest_change(epsilon: float) -> int:
    """What the package lets through when the pattern asks for as much as it can get."""
    black = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    white = torch.ones(1, 1, 2, 2)
    return int(budget.enforce(black, white, epsilon).max())

"""Answer checks of notebook 09: which codes a scenario searches with, and when a cell of Table 1 is met."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pplkit.checks import Mistake, call, check, compare, describe, expect_close, fail, show
from pplkit.retrieval import mean_average_precision

NAMES = ("C->C", "C->A", "A->C", "A->A")


def _codes(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)

    def draw(n: int) -> torch.Tensor:
        return torch.randint(0, 2, (n, 6), generator=random).mul(2).sub(1).to(torch.int8)

    query = {"C": draw(4), "A": draw(4)}
    database = {"C": draw(12), "A": draw(12)}
    return query, database, torch.arange(4) % 2, torch.arange(12) % 2


@check
def scenario_map(function: Callable) -> str:
    """09.1: mAP of one scenario from the four sets of codes."""
    for seed in range(3):
        query, database, query_labels, database_labels = _codes(seed)

        def value(q: str, d: str) -> float:
            return mean_average_precision(query[q], query_labels, database[d], database_labels).expected  # noqa: B023

        for name in NAMES:
            asked, searched = name.split("->")
            got = call(function, name, query, database, query_labels, database_labels, case=f"{name}, set of codes {seed}")
            got = getattr(got, "expected", got)
            mistakes = [(value(searched, asked), "query and database are swapped: the name reads query->database")]
            mistakes += [(value(q, d), f"this is the mAP of {q}->{d}") for q in "CA" for d in "CA"]
            result = mean_average_precision(query[asked], query_labels, database[searched], database_labels)
            mistakes += [(result.best, "this is the best order of the ties; report the expectation"),
                         (result.worst, "this is the worst order of the ties; report the expectation")]
            turned = mean_average_precision(database[searched], database_labels, query[asked], query_labels).expected
            mistakes += [(turned, "the database asks and the queries are searched: queries come first")]
            expect_close(got, value(asked, searched), case=f"{name}, set of codes {seed}", name="the mAP", mistakes=mistakes)
    return "the four scenarios of 3 seeded sets of codes"


def _met(ours: float, paper: float, in_domain: bool, tolerance: float) -> bool:
    return ours >= paper - tolerance if in_domain else ours <= paper + tolerance


@check
def cells_met_by(function: Callable) -> str:
    """09.2: how many cells are met by a searcher that has the same mAP in all of them."""
    def counted(met: Callable[..., bool]) -> Callable[..., int]:
        return lambda ours, cells, tolerance: sum(bool(met(ours, *cell, tolerance)) for cell in cells)

    cases: list[tuple] = [(0.88, [(0.91, True)], 0.02), (0.9, [(0.91, True)], 0.02), (0.35, [(0.3, False)], 0.02),
                          (0.31, [(0.3, False)], 0.02), (0.5, [(0.625, True), (0.375, False)], 0.125),
                          (0.3, [(0.3, True), (0.3, False)], 0.0), (0.95, [(0.91, True), (0.3, False)], 0.02)]
    random = torch.Generator().manual_seed(0)
    for tolerance in (0.02, 0.1):
        paper = torch.rand(64, generator=random).tolist()
        cases.append((0.4, [(value, number % 4 == 0) for number, value in enumerate(paper)], tolerance))
    got = [call(function, *case) for case in cases]
    for answer, case in zip(got, cases, strict=True):
        if getattr(answer, "ndim", 0) or isinstance(answer, (list, tuple)):
            fail(f"for {describe(case, {})}: the result is {show(answer)}; one number is needed, how many cells are met")
    typical: list[Mistake] = [
        (counted(lambda o, p, i, t: o >= p - t), "a high mAP is good only in-domain; across domains protection wants it low"),
        (counted(lambda o, p, i, t: o <= p + t), "a low mAP is good only across domains; in-domain images must stay usable"),
        (counted(lambda o, p, i, t: _met(o, p, i, 0.0)), "you dropped the tolerance"),
        (counted(lambda o, p, i, t: abs(o - p) <= t), "a cell that is far better than the paper's is met, too"),
        (counted(lambda o, p, i, t: _met(o, p, i, -t)), "the tolerance is on the wrong side: it forgives, it does not demand "
                                                        "more"),
        (counted(lambda o, p, i, t: _met(o, p, not i, t)), "the two cases are swapped: more is better in-domain, less across "
                                                           "domains"),
        (counted(lambda o, p, i, t: not i and _met(o, p, i, t)), "you left out the in-domain cells"),
        (counted(lambda o, p, i, t: o > p - t if i else o < p + t), "a cell exactly at the edge of the tolerance is met, too"),
        (lambda o, cells, t: len(cells) - counted(_met)(o, cells, t), "these are the cells that are not met"),
        (lambda o, cells, t: counted(_met)(o, cells, t) / len(cells), "this is a share; count the cells"),
        (counted(lambda o, p, i, t: i and _met(o, p, i, t)), "you left out the cells across domains"),
    ]
    for wrong, message in typical:  # small counts say little one by one: a mistake is known by all its answers
        if got == [wrong(*case) for case in cases]:
            fail(f"{message[:1].upper()}{message[1:]}")
    compare(function, counted(_met), cases)
    return f"{len(cases)} lists of cells"

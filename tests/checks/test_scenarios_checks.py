"""Checks of notebook 09: right answers pass, typical wrong ones are told what is wrong."""

import pytest
import torch

from pplkit.checks import CheckFailed
from pplkit.checks import scenarios as check
from pplkit.retrieval import mean_average_precision


def right(scenario, query, database, query_labels, database_labels):
    q, d = scenario.split("->")
    return mean_average_precision(query[q], query_labels, database[d], database_labels).expected


def swapped(scenario, query, database, query_labels, database_labels):
    return right("->".join(reversed(scenario.split("->"))), query, database, query_labels, database_labels)


def always_clean(scenario, *codes):
    return right("C->C", *codes)


def not_done(*arguments):
    raise NotImplementedError


def counted(rule):
    return lambda ours, cells, tolerance: sum(rule(ours, *cell, tolerance) for cell in cells)


def met(ours, paper, in_domain, tolerance):
    return ours >= paper - tolerance if in_domain else ours <= paper + tolerance


def test_right_answers_pass(capsys):
    check.scenario_map(right)
    check.cells_met_by(counted(met))
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(("test", "answer", "words"), [
    (check.scenario_map, swapped, "swapped"),
    (check.scenario_map, always_clean, "mAP of C->C"),
    (check.scenario_map, lambda s, q, d, ql, dl: right("->".join(reversed(s.split("->"))), d, q, dl, ql), "queries come first"),
    (check.scenario_map, not_done, "not implemented yet"),
    (check.cells_met_by, not_done, "not implemented yet"),
    (check.cells_met_by, lambda o, cells, t: None, "return"),
    (check.cells_met_by, lambda o, cells, t: 1, "got 1, expected 0"),
    (check.cells_met_by, counted(lambda o, p, i, t: o >= p - t), "only in-domain"),
    (check.cells_met_by, counted(lambda o, p, i, t: o <= p + t), "only across domains"),
    (check.cells_met_by, counted(lambda o, p, i, t: met(o, p, not i, t)), "two cases are swapped"),
    (check.cells_met_by, counted(lambda o, p, i, t: met(o, p, i, 0.0)), "dropped the tolerance"),
    (check.cells_met_by, counted(lambda o, p, i, t: met(o, p, i, -t)), "on the wrong side"),
    (check.cells_met_by, counted(lambda o, p, i, t: abs(o - p) <= t), "far better"),
    (check.cells_met_by, lambda o, cells, t: len(cells) - counted(met)(o, cells, t), "not met"),
    (check.cells_met_by, lambda o, cells, t: counted(met)(o, cells, t) / len(cells), "This is a share"),
    (check.cells_met_by, counted(lambda o, p, i, t: i and met(o, p, i, t)), "left out the cells across domains"),
    (check.cells_met_by, counted(lambda o, p, i, t: not i and met(o, p, i, t)), "left out the in-domain cells"),
    (check.cells_met_by, lambda o, cells, t: [met(o, *cell, t) for cell in cells], "one number is needed"),
    (check.cells_met_by, lambda o, cells, t: torch.tensor([met(o, *cell, t) for cell in cells]), "one number is needed"),
])
def test_wrong_answers_are_explained(test, answer, words):
    with pytest.raises(CheckFailed, match=words):
        test(answer)

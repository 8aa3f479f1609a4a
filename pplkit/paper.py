"""The paper's numbers, to stand beside ours."""

import csv
from functools import lru_cache

from pplkit.data import embedded

TRAIN_DOMAINS = {"clean": ("C->C", "C->A", "A->C", "A->A"), "adversarial": ("A->A", "A->C", "C->A", "C->C")}
METHODS = ("adsh", "dsdh")
BITS = (8, 12, 16, 24)
TOLERANCE = 0.02
CROSSES = "crosses: the paper's Table 1 (ADSH there most likely with learned database codes)"  # a legend's title


@lru_cache
def table1() -> dict[tuple[str, str, str, str, int], float]:
    """Table 1 of the paper: (dataset, train domain, method, scenario, bits) -> mAP, 192 cells.

    Datasets are "cifar10", "imagenet13", "fashion-mnist"; train domains "clean" and "adversarial"; methods "adsh" and "dsdh".
    """
    with open(embedded("results", "paper-table1.csv"), newline="") as file:
        return {(row["dataset"], row["train"], row["method"], row["task"], int(row["bits"])): float(row["mAP"])
                for row in csv.DictReader(file)}


def victim_row(dataset: str, train_domain: str, method: str, bits: int) -> dict[str, float]:
    """Scenario -> mAP of one victim in the paper's Table 1, as in `table1`; empty for a data set that it has not."""
    return {scenario: mean for scenario in TRAIN_DOMAINS[train_domain]
            if (mean := table1().get((dataset, train_domain, method, scenario, bits))) is not None}


def in_domain(train_domain: str, scenario: str) -> bool:
    """True where the searcher's queries and database both come from the domain the victim was trained on."""
    return scenario == ("C->C" if train_domain == "clean" else "A->A")


def at_least_as_good(ours: float, paper: float, train_domain: str, scenario: str, tolerance: float = TOLERANCE) -> bool:
    """Whether a cell is met: in-domain mAP not lower than the paper's, cross-domain mAP not higher, within `tolerance`."""
    return ours >= paper - tolerance if in_domain(train_domain, scenario) else ours <= paper + tolerance

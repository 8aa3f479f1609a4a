"""pplkit.paper: Table 1 as data, and when a cell counts as met."""

import pytest

from pplkit import paper

# Lines of Table 1 as printed: CIFAR-10, ImageNet and Fashion-MNIST at 8, 12, 16, 24 bits.
PRINTED = {
    ("clean", "adsh", "C->C"): "0.9221 0.9555 0.9522 0.9521 0.9682 0.9894 0.9939 0.9865 0.8496 0.8843 0.9007 0.9184",
    ("clean", "adsh", "A->C"): "0.4023 0.5350 0.6213 0.5443 0.6992 0.7805 0.7727 0.7639 0.4850 0.4715 0.4118 0.4318",
    ("clean", "dsdh", "A->A"): "0.1939 0.2120 0.2065 0.2239 0.6425 0.6986 0.7001 0.7309 0.2265 0.3198 0.2858 0.3262",
    ("adversarial", "adsh", "C->A"): "0.2322 0.2751 0.3100 0.3715 0.1920 0.1975 0.1802 0.2052 0.3438 0.4376 0.4116 0.3849",
    ("adversarial", "dsdh", "C->C"): "0.1358 0.1186 0.1168 0.1194 0.1095 0.0935 0.1105 0.0989 0.3079 0.2967 0.3229 0.3565",
}


def test_table_1_has_every_cell_once():
    expected = {
        (dataset, train, method, scenario, bits)
        for dataset in ("cifar10", "imagenet13", "fashion-mnist")
        for train, scenarios in paper.TRAIN_DOMAINS.items()
        for method in paper.METHODS
        for scenario in scenarios
        for bits in paper.BITS
    }
    assert set(paper.table1()) == expected and len(expected) == 192
    assert all(0 < value < 1 for value in paper.table1().values())


@pytest.mark.parametrize("line", PRINTED)
def test_cells_are_the_printed_ones(line):
    train, method, scenario = line
    found = [
        paper.table1()[dataset, train, method, scenario, bits]
        for dataset in ("cifar10", "imagenet13", "fashion-mnist")
        for bits in paper.BITS
    ]
    assert found == [float(value) for value in PRINTED[line].split()]


def test_both_train_domains_cover_the_four_scenarios():
    for scenarios in paper.TRAIN_DOMAINS.values():
        assert sorted(scenarios) == ["A->A", "A->C", "C->A", "C->C"]
        assert [paper.in_domain("clean", s) for s in scenarios].count(True) == 1
    assert paper.in_domain("clean", "C->C") and paper.in_domain("adversarial", "A->A")
    assert not paper.in_domain("clean", "A->A") and not paper.in_domain("adversarial", "C->C")


@pytest.mark.parametrize(
    ("ours", "train", "scenario", "met"),
    [
        (0.90, "clean", "C->C", True),  # in-domain: higher is better
        (0.785, "clean", "C->C", True),
        (0.775, "clean", "C->C", False),
        (0.70, "clean", "C->A", True),  # cross-domain: lower is better
        (0.815, "clean", "C->A", True),
        (0.825, "clean", "C->A", False),
        (0.775, "adversarial", "A->A", False),
        (0.825, "adversarial", "C->C", False),
        (0.785, "clean", "A->A", True),
    ],
)
def test_a_cell_is_met_in_the_right_direction_within_the_tolerance(ours, train, scenario, met):
    assert paper.TOLERANCE == 0.02
    assert paper.at_least_as_good(ours, 0.80, train, scenario) is met


def test_a_tolerance_of_0_is_strict():
    assert paper.at_least_as_good(0.8, 0.8, "clean", "C->C", 0.0)
    assert not paper.at_least_as_good(0.799, 0.8, "clean", "C->C", 0.0)
    assert not paper.at_least_as_good(0.801, 0.8, "clean", "A->C", 0.0)

"""Retrieval measures against brute force, loops and scikit-learn; bad input."""

import doctest
import itertools
import math
import re
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from coded_images import multi_hot, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pplkit import retrieval
from pplkit.retrieval import (
    hamming_distance,
    mean_average_precision,
    precision_at,
    precision_recall_curve,
    recall_at,
    top_k,
)


def rankings(distances):
    """Every order of the items that a ranking by distance allows."""
    groups = [[i for i, d in enumerate(distances) if d == value] for value in sorted(set(distances))]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [i for order in orders for i in order]


def average_precision(ranked, cut):
    """AP@cut of relevances in rank order, straight from the definition."""
    hits = [place for place, relevant in enumerate(ranked, 1) if relevant and place <= cut]
    return sum(Fraction(found, place) for found, place in enumerate(hits, 1)) / min(sum(ranked), cut)


def expected_by_place(distances, relevant, cut):
    """Expected AP@cut, summed over the places of the ranking one by one (no harmonic numbers)."""
    total, nearer, relevant_nearer = 0.0, 0, 0
    for distance in sorted(set(distances)):
        group = [r for d, r in zip(distances, relevant, strict=True) if d == distance]
        n, r = len(group), sum(group)
        for i in range(1, min(n, cut - nearer) + 1):
            others = (i - 1) * (r - 1) / (n - 1) if n > 1 else 0
            total += r / n * (relevant_nearer + 1 + others) / (nearer + i)
        nearer, relevant_nearer = nearer + n, relevant_nearer + r
    return total / min(relevant_nearer, cut)


def distance_loop(a, b):
    return [[sum(int(x != y) for x, y in zip(p, q, strict=True)) for q in b.tolist()] for p in a.tolist()]


small_case = st.integers(1, 7).flatmap(
    lambda items: st.tuples(
        st.lists(st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3), min_size=items, max_size=items),
        st.lists(st.booleans(), min_size=items, max_size=items).filter(any),
        st.integers(1, items),
    )
)


@settings(max_examples=60, deadline=None)
@given(small_case)
def test_equals_brute_force_over_all_tie_orders(case):
    codes, relevant, cut = case
    query, database = torch.ones(1, 3), torch.tensor(codes)
    labels = torch.tensor(relevant).long()
    (distances,) = distance_loop(query, database)
    ranked = [[relevant[i] for i in order] for order in rankings(distances)]
    for at, limit in ((None, len(codes)), (cut, cut)):
        values = [average_precision(order, limit) for order in ranked]
        result = mean_average_precision(query, torch.tensor([1]), database, labels, at=at)
        assert result.expected == pytest.approx(float(sum(values) / len(values)), abs=1e-12)
        assert result.worst == pytest.approx(float(min(values)), abs=1e-12)
        assert result.best == pytest.approx(float(max(values)), abs=1e-12)
    found = sum(Fraction(sum(order[:cut])) for order in ranked) / len(ranked)
    arguments = (query, torch.tensor([1]), database, labels, cut)
    assert precision_at(*arguments).item() == pytest.approx(float(found / cut), abs=1e-12)
    assert recall_at(*arguments).item() == pytest.approx(float(found / sum(relevant)), abs=1e-12)


def test_worked_example():
    # distance 0: one relevant; 1: two items, one relevant; 2: one relevant
    query = torch.tensor([[1, 1]])
    database = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    result = mean_average_precision(query, torch.tensor([7]), database, torch.tensor([7, 7, 0, 7]))
    best, worst = (1 + 2 / 2 + 3 / 4) / 3, (1 + 2 / 3 + 3 / 4) / 3
    assert (result.best, result.worst) == pytest.approx((best, worst), abs=1e-15)
    assert result.expected == pytest.approx((best + worst) / 2, abs=1e-15)
    # the formula's bracket for d = 1: n = 2, r = 1, N = R = 1, f = 0: (1/2) (R + 1) (H_3 - H_1)
    assert result.expected == pytest.approx((1 + 0.5 * 2 * (1 / 2 + 1 / 3) + 3 / 4) / 3, abs=1e-15)


@pytest.mark.parametrize("bits", [1, 5, 12, 31, 33, 64, 70])
@pytest.mark.parametrize("at", [None, 1, 17])
def test_equals_python_loops(bits, at):
    query_codes, query_labels = random_images(9, bits, seed=1)
    codes, labels = random_images(60, bits, seed=2)
    codes[::4] = codes[0]  # repeated codes, of every class
    result = mean_average_precision(query_codes, query_labels, codes, labels, at=at)
    for query, distances in enumerate(distance_loop(query_codes, codes)):
        relevant = [int(label == query_labels[query]) for label in labels]
        value = expected_by_place(distances, relevant, at or len(codes))
        assert result.per_query[query].item() == pytest.approx(value, abs=1e-12)
        by_best = sorted(range(len(codes)), key=lambda i: (distances[i], -relevant[i]))
        by_worst = sorted(range(len(codes)), key=lambda i: (distances[i], relevant[i]))
        for order, extreme in ((by_best, result.per_query_best), (by_worst, result.per_query_worst)):
            exact = average_precision([relevant[i] for i in order], at or len(codes))
            assert extreme[query].item() == pytest.approx(float(exact), abs=1e-12)
    assert result.expected == pytest.approx(result.per_query.mean().item(), abs=1e-15)


def test_equals_scikit_learn_without_ties():
    bits = 50
    codes = torch.ones(bits + 1, bits).triu().mul(2).sub(1)  # item i differs from all ones in i bits
    codes = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))]
    labels = random_images(len(codes), 2, classes=2)[1]
    query = torch.ones(1, bits)
    result = mean_average_precision(query, torch.tensor([1]), codes, labels)
    score = average_precision_score(labels.numpy(), -hamming_distance(query, codes)[0].numpy())
    assert result.expected == pytest.approx(score, abs=1e-12)
    assert result.worst == pytest.approx(result.best, abs=1e-12)


@pytest.mark.parametrize("bits", [8, 40])
def test_database_and_query_order_do_not_matter(bits):
    queries, database = random_images(30, bits, seed=3), random_images(500, bits, seed=4)
    shuffle = torch.randperm(500, generator=torch.Generator().manual_seed(5))
    other = torch.randperm(30, generator=torch.Generator().manual_seed(6))
    first = mean_average_precision(*queries, *database)
    again = mean_average_precision(*(part[other] for part in queries), *(part[shuffle] for part in database))
    assert torch.equal(first.per_query[other], again.per_query)
    assert torch.equal(first.per_query_best[other], again.per_query_best)


@pytest.mark.parametrize("at", [None, 1, 10, 333])
@pytest.mark.parametrize("bits", [4, 24])
def test_worst_expected_best_are_ordered(bits, at):
    result = mean_average_precision(*random_images(50, bits), *random_images(333, bits, seed=9), at=at)
    assert (result.per_query_worst <= result.per_query + 1e-12).all()
    assert (result.per_query <= result.per_query_best + 1e-12).all()
    assert 0 <= result.worst <= result.expected <= result.best <= 1


def test_at_whole_database_is_the_default():
    queries, database = random_images(20, 6), random_images(100, 6, seed=1)
    whole, cut = (mean_average_precision(*queries, *database, at=at) for at in (None, 100))
    assert torch.equal(whole.per_query, cut.per_query)


def test_at_is_normalised_by_what_the_places_can_hold():
    # five relevant items, all first: AP@2 is 1, not 2/5; all last: nothing is found in two places
    query, label = torch.ones(1, 4), torch.tensor([1])
    near, far = torch.ones(5, 4), -torch.ones(5, 4)
    labels = torch.tensor([1] * 5 + [0] * 5)
    assert mean_average_precision(query, label, torch.cat([near, far]), labels, at=2).worst == 1
    assert mean_average_precision(query, label, torch.cat([far, near]), labels, at=2).best == 0


def test_multi_label_relevance_is_any_label_in_common():
    query_codes, codes = random_images(8, 10)[0], random_images(50, 10, seed=1)[0]
    query_labels, labels = multi_hot(8), multi_hot(50, seed=1)
    query_labels[:, 0] |= ~query_labels.any(1)
    labels[0] = True
    for convert in (torch.Tensor.bool, torch.Tensor.long, lambda hot: hot.to(torch.uint8)):
        result = mean_average_precision(query_codes, convert(query_labels), codes, convert(labels))
        for query, distances in enumerate(distance_loop(query_codes, codes)):
            relevant = [bool((query_labels[query] & row).any()) for row in labels]
            value = expected_by_place(distances, relevant, len(codes))
            assert result.per_query[query].item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("bits", [6, 36])
def test_one_hot_labels_equal_class_numbers(bits):
    (query_codes, query_labels), (codes, labels) = random_images(40, bits), random_images(300, bits, seed=1)
    one_hot = [torch.nn.functional.one_hot(part, 3) for part in (query_labels, labels)]
    by_class = mean_average_precision(query_codes, query_labels, codes, labels)
    by_row = mean_average_precision(query_codes, one_hot[0], codes, one_hot[1])
    assert torch.equal(by_class.per_query, by_row.per_query)


MILLION = """
import resource, sys, time
import torch
from pplkit.retrieval import mean_average_precision
torch.set_num_threads(1)
random = torch.Generator().manual_seed(0)
codes = torch.randint(0, 2, (1_000_000, 32), generator=random, dtype=torch.int8) * 2 - 1
labels = torch.randint(10, (1_000_000,), generator=random)
unit = 1 if sys.platform == "darwin" else 1024
mean_average_precision(codes[:10], labels[:10], codes[:100], labels[:100], empty="skip")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = mean_average_precision(codes[:100], labels[:100], codes, labels)
print(result.expected, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 2**20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read with the resource module")
def test_a_million_images_fit_in_bounded_memory():
    run = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    expected, mebibytes = map(float, run.stdout.split())
    assert expected == pytest.approx(0.1, abs=0.01)
    assert mebibytes < 300  # the 100 x 10^6 distances alone would take 763 as int64


def test_rounding_error_with_a_million_images():
    million = 10**6
    harmonic = math.fsum(1 / i for i in range(1, million + 1))
    items = torch.tensor([[million, 0], [million - 1, 1], [million - 2, 2], [1, million - 1]])
    relevant = torch.tensor([[1, 0], [0, 1], [0, 2], [0, 2]])
    expected, worst, best = retrieval._precision_sums(items, relevant, million)
    exact = [harmonic / million, 1 / million, 1 / (million - 1) + 2 / million]
    assert expected[:3].tolist() == pytest.approx(exact, abs=1e-8)
    assert best[3].item() == pytest.approx(1 / 2 + 2 / 3, abs=1e-8)
    assert worst[3].item() == pytest.approx(1 / (million - 1) + 2 / million, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float32, torch.float64, torch.bfloat16])
def test_code_dtypes(dtype):
    queries, database = random_images(10, 9, dtype=dtype), random_images(90, 9, seed=1, dtype=dtype)
    reference = mean_average_precision(*random_images(10, 9), *random_images(90, 9, seed=1))
    assert torch.equal(mean_average_precision(*queries, *database).per_query, reference.per_query)


def test_codes_with_gradient_history_are_accepted():
    (codes, labels), database = random_images(10, 9, dtype=torch.float32), random_images(90, 9, seed=1)
    result = mean_average_precision(codes.requires_grad_(), labels, *database)
    assert not result.per_query.requires_grad


def test_several_k_at_once():
    images = (*random_images(10, 7), *random_images(90, 7, seed=1))
    for measure in (precision_at, recall_at):
        together = measure(*images, [1, 10, 90])
        assert together.shape == (3, 10) and together.dtype == torch.float64
        for row, k in zip(together, (1, 10, 90), strict=True):
            assert torch.equal(row, measure(*images, k))
    assert recall_at(*images, 90).tolist() == pytest.approx([1] * 10, abs=1e-12)


def test_precision_recall_curve_is_lookup_within_a_radius():
    (query_codes, query_labels), (codes, labels) = random_images(12, 8), random_images(40, 8, seed=1)
    curve = precision_recall_curve(query_codes, query_labels, codes, labels)
    assert curve.radius.tolist() == list(range(9))
    distances = distance_loop(query_codes, codes)
    for radius in range(9):
        precision, recall, returned = [], [], []
        for query, row in enumerate(distances):
            inside = [int(labels[i] == query_labels[query]) for i, d in enumerate(row) if d <= radius]
            precision.append(sum(inside) / len(inside) if inside else 0)
            recall.append(sum(inside) / int((labels == query_labels[query]).sum()))
            returned.append(len(inside))
        found = [part[radius].item() for part in (curve.precision, curve.recall, curve.returned)]
        mean = [sum(values) / 12 for values in (precision, recall, returned)]
        assert found == pytest.approx(mean, abs=1e-12)
    assert curve.recall[-1] == 1 and curve.returned[-1] == 40


def test_hamming_distance_and_top_k():
    query_codes, codes = random_images(7, 6)[0], random_images(50, 6, seed=1)[0]
    distances = hamming_distance(query_codes, codes)
    assert distances.dtype == torch.int64 and distances.tolist() == distance_loop(query_codes, codes)
    index, nearest = top_k(query_codes, codes, 20)
    for query, row in enumerate(distances.tolist()):
        order = sorted(range(50), key=lambda i: (row[i], i))[:20]  # ties in database order
        assert index[query].tolist() == order
        assert nearest[query].tolist() == [row[i] for i in order]


def test_top_k_in_chunks(monkeypatch):
    query_codes, codes = random_images(7, 6)[0], random_images(50, 6, seed=1)[0]
    whole = top_k(query_codes, codes, 5)
    monkeypatch.setattr(retrieval, "TILE", 100)
    assert all(torch.equal(a, b) for a, b in zip(whole, top_k(query_codes, codes, 5), strict=True))


def test_interval_is_a_bootstrap_over_queries(monkeypatch):
    result = mean_average_precision(*random_images(400, 8), *random_images(500, 8, seed=1))
    low, high = result.interval(seed=3)
    assert low < result.expected < high
    assert (low, high) == result.interval(seed=3) != result.interval(seed=4)
    error = result.per_query.std().item() / math.sqrt(400)  # the mean of 400 values is nearly normal
    assert (low, high) == pytest.approx(
        (result.expected - 1.96 * error, result.expected + 1.96 * error), abs=0.3 * error
    )
    narrow = result.interval(confidence=0.5, seed=3)
    assert low < narrow[0] < narrow[1] < high
    monkeypatch.setattr(retrieval, "TILE", 1000)
    assert result.interval(seed=3) == pytest.approx((low, high), abs=0.3 * error)


def test_query_without_relevant_images():
    codes, labels = random_images(30, 5)
    query_labels = torch.tensor([0, 9, 1, 9])
    with pytest.raises(ValueError, match=r"2 of 4 queries .*the first is query 1"):
        mean_average_precision(codes[:4], query_labels, codes, labels)
    result = mean_average_precision(codes[:4], query_labels, codes, labels, empty="skip")
    alone = mean_average_precision(codes[[0, 2]], query_labels[[0, 2]], codes, labels)
    assert result.per_query.isnan().tolist() == [False, True, False, True]
    assert result.expected == alone.expected and result.interval() == alone.interval()
    for measure in (precision_at, recall_at):
        values = measure(codes[:4], query_labels, codes, labels, 5, empty="skip")
        assert values.isnan().tolist() == [False, True, False, True]
    curve = precision_recall_curve(codes[:4], query_labels, codes, labels, empty="skip")
    kept = precision_recall_curve(codes[[0, 2]], query_labels[[0, 2]], codes, labels)
    assert torch.equal(curve.precision, kept.precision)
    with pytest.raises(ValueError, match="2 of 2 queries"):
        mean_average_precision(codes[:2], torch.tensor([8, 9]), codes, labels, empty="skip")
    with pytest.raises(ValueError, match="empty is 'ignore'; expected 'error' or 'skip'"):
        mean_average_precision(codes[:4], query_labels, codes, labels, empty="ignore")


def images_with(**changes):
    (query_codes, query_labels), (codes, labels) = random_images(4, 6), random_images(20, 6, seed=1)
    images = {
        "query_codes": query_codes,
        "query_labels": query_labels,
        "database_codes": codes,
        "database_labels": labels,
    }
    return {**images, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_codes": torch.tensor([[1.0, 0.25, 1, 1, 1, 1]] * 4)}, r"query_codes\[0, 1\] is 0.25"),
        ({"query_codes": torch.zeros(4, 6)}, r"query_codes\[0, 0\] is 0.0; codes must be exactly -1 or \+1"),
        ({"database_codes": torch.full((20, 6), torch.nan)}, r"database_codes\[0, 0\] is nan"),
        ({"database_codes": torch.full((20, 6), -128, dtype=torch.int8)}, r"is -128"),
        ({"database_codes": torch.ones(20, 6).bool()}, "torch.bool; expected numbers -1 and"),
        ({"database_codes": torch.ones(20, 5)}, "query_codes has 6 bits, database_codes 5"),
        ({"database_codes": torch.ones(20)}, r"database_codes has shape \(20,\)"),
        ({"query_codes": torch.ones(0, 6), "query_labels": torch.ones(0).long()}, r"shape \(0, 6\)"),
        ({"database_codes": torch.ones(20, 0)}, r"database_codes has shape \(20, 0\)"),
        ({"query_labels": torch.ones(3).long()}, r"query_labels has shape \(3,\) for 4 codes"),
        ({"query_labels": torch.ones(4)}, "query_labels is torch.float32"),
        ({"query_labels": torch.ones(4).bool()}, "query_labels is torch.bool"),
        ({"query_labels": torch.tensor([0, 1, -1, 0])}, "query_labels contains -1"),
        ({"query_labels": torch.tensor([0, 1, 2**31, 0])}, "query_labels contains 2147483648"),
        ({"query_labels": torch.full((4, 3), 2)}, "query_labels contains 2"),
        ({"query_labels": torch.ones(4, 0).bool()}, r"query_labels has shape \(4, 0\)"),
        ({"query_labels": torch.ones(4, 3).long()}, r"query_labels \(4, 3\) and database_labels \(20,\)"),
        ({"query_labels": [0, 1, 2, 0]}, "query_labels is of type list; expected a torch tensor"),
        ({"database_labels": None}, "database_labels is of type NoneType; expected a torch tensor"),
        ({"query_codes": torch.ones(4, 6).numpy()}, "query_codes is of type ndarray; expected a torch tensor"),
        ({"database_codes": [[1] * 6] * 20}, "database_codes is of type list; expected a torch tensor"),
    ],
)
def test_bad_input_is_quoted(changes, message):
    images = images_with(**changes)
    calls = (
        lambda: mean_average_precision(**images),
        lambda: precision_at(**images, k=3),
        lambda: recall_at(**images, k=3),
        lambda: precision_recall_curve(**images),
    )
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("places", [0, -1, 21, 2.5, True, "3"])
def test_bad_number_of_results(places):
    images = images_with()
    message = f"is {places!r}; expected a number of results from 1 to 20"
    with pytest.raises(ValueError, match="at " + message):
        mean_average_precision(**images, at=places)
    for measure in (precision_at, recall_at):
        with pytest.raises(ValueError, match="k " + message):
            measure(**images, k=[places])
    with pytest.raises(ValueError, match="k " + message):
        top_k(images["query_codes"], images["database_codes"], places)


@pytest.mark.parametrize("places", [[3], [3, 4], [], "12", None])
def test_several_results_are_not_one(places):
    images, message = images_with(), f"is {re.escape(repr(places))}; expected a number of results from 1 to 20"
    with pytest.raises(ValueError, match="k " + message):
        top_k(images["query_codes"], images["database_codes"], places)
    if places is not None:  # the default: the whole database
        with pytest.raises(ValueError, match="at " + message):
            mean_average_precision(**images, at=places)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("confidence", bad) for bad in (95, 0, 1.0, math.nan, "0.95", None)),
        *(("resamples", bad) for bad in (0, 10.5, "10", True, math.nan)),
        *(("seed", bad) for bad in (1.5, "0", None)),
    ],
)
def test_bad_interval_arguments(name, bad):
    with pytest.raises(ValueError, match=f"{name} is {bad!r}; "):
        mean_average_precision(**images_with()).interval(**{name: bad})


def test_bad_codes_for_distances():
    with pytest.raises(ValueError, match="a has 3 bits, b 4"):
        hamming_distance(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"b\[0, 0\] is 2"):
        hamming_distance(torch.ones(2, 3), torch.full((2, 3), 2))
    with pytest.raises(ValueError, match="a is of type list; expected a torch tensor"):
        hamming_distance([[1, 1, 1]], torch.ones(2, 3))
    with pytest.raises(ValueError, match="query_codes has 3 bits, database_codes 4"):
        top_k(torch.ones(2, 3), torch.ones(2, 4), 1)


def test_documented_example():
    assert doctest.testmod(retrieval).failed == 0

"""Hamming ranking and its measures: average precision over all tie orders, precision and recall at k, curves.

A c-bit code has only c + 1 distances, so a Hamming ranking is a sequence of large groups of equally distant
images and says nothing about the order inside a group. Every measure here is the exact expectation over all
orders of the tied images; average precision comes with its worst and its best order too. Reference: McSherry
& Najork, "Computing information retrieval performance measures efficiently in the presence of tied scores",
ECIR 2008.

Arguments shared by all measures:

- `query_codes` (Q, c) and `database_codes` (N, c): exactly -1 or +1, any signed integer or float dtype, any
  device.
- `query_labels` (Q,) and `database_labels` (N,): integer class numbers 0, 1, 2, ...; or (Q, L) and (N, L):
  multi-hot, bool or 0/1. An image is relevant to a query if it has the same class, or any label in common.
- `empty`: what to do with a query that has no relevant image in the database. "error" raises a ValueError;
  "skip" gives NaN for it and leaves it out of the means.

In the formulas, at distance d from a query there are n_d database images, r_d of them relevant; N_d and R_d
count those at smaller distances; R is the number of relevant images in the database.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

import torch
from torch import Tensor

from pplkit.distance_counts import TILE, check_codes, check_images, check_lengths, distance_counts


@dataclass(frozen=True, eq=False)
class MeanAveragePrecision:
    """Mean average precision of a set of queries: expected over tie orders, and for the two extreme orders.

    Attributes:
        expected: mean over the queries of the expected average precision, in [0, 1].
        worst: the same if the relevant images come last among equally distant ones.
        best: the same if they come first.
        per_query: expected average precision of each query, float64 (Q,); NaN where a query was skipped.
        per_query_worst: as `per_query`, worst order.
        per_query_best: as `per_query`, best order.
    """

    expected: float
    worst: float
    best: float
    per_query: Tensor = field(repr=False)
    per_query_worst: Tensor = field(repr=False)
    per_query_best: Tensor = field(repr=False)

    def interval(self, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Percentile bootstrap interval of `expected`: how much it depends on which queries were drawn.

        Args:
            confidence: coverage, in (0, 1).
            resamples: number of bootstrap samples, at least 1.
            seed: seed of the resampling, a whole number.

        Returns:
            (low, high): the (1 - confidence)/2 and (1 + confidence)/2 quantiles of the resampled means.

        Raises:
            ValueError: if `confidence` or `resamples` is out of range, or one of the three is no such number.
        """
        if not isinstance(confidence, Real) or not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence!r}; it must lie strictly between 0 and 1, e.g. 0.95")
        if not _is_whole(resamples) or resamples < 1:
            raise ValueError(f"resamples is {resamples!r}; a whole number of at least 1 is needed, e.g. 1000")
        if not _is_whole(seed):
            raise ValueError(f"seed is {seed!r}; a whole number is needed, e.g. 0")
        values = self.per_query[~self.per_query.isnan()]  # (Q,)
        random = torch.Generator().manual_seed(int(seed))
        means = torch.empty(int(resamples), dtype=torch.float64)
        step = max(1, TILE // len(values))
        for part in means.split(step):
            drawn = torch.randint(len(values), (len(part), len(values)), generator=random)  # (r, Q)
            part.copy_(values[drawn].mean(dim=1))  # (r,)
        tail = (1 - confidence) / 2
        low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
        return low, high


def mean_average_precision(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    *,
    at: int | None = None,
    empty: str = "error",
) -> MeanAveragePrecision:
    """mAP of Hamming ranking, exact over all orders of equally distant images.

    With K = `at`, f = (r_d - 1)/(n_d - 1) (0 if n_d = 1), m = min(n_d, max(0, K - N_d)) places of group d
    inside the first K, and harmonic numbers H_i = 1 + 1/2 + ... + 1/i,

        AP@K = 1/min(R, K) sum_d (r_d/n_d) [m f + (R_d + 1 - f (N_d + 1)) (H_{N_d+m} - H_{N_d})].

    The place N_d + i of the ranking holds a relevant image with probability r_d/n_d, and then an expected
    R_d + 1 + (i - 1) f relevant images stand in the first N_d + i places; summing their quotient over i =
    1..m gives the bracket. `at=None` means K = N: the whole database, m = n_d. AP@K divides by min(R, K), the
    most that K places can hold, not by the number of relevant images that happen to be retrieved.

    Args:
        query_codes: (Q, c) in {-1, +1}.
        query_labels: (Q,) or (Q, L).
        database_codes: (N, c) in {-1, +1}.
        database_labels: (N,) or (N, L).
        at: K, 1..N, or None for the whole database.
        empty: "error" or "skip".

    Returns:
        MeanAveragePrecision; its error from rounding is below 1e-8 for a database of 10^6 images.

    Raises:
        ValueError: for codes other than -1/+1, sizes that do not fit, nothing to rank, K outside 1..N, or
            (with empty="error") a query without relevant images.

    Source: McSherry & Najork 2008 for the whole ranking; the same sum, cut inside a group, for AP@K.

    Example:
        >>> query, database = torch.tensor([[1, 1]]), torch.tensor([[1, 1], [1, -1], [-1, 1]])
        >>> result = mean_average_precision(query, torch.tensor([0]), database, torch.tensor([1, 0, 1]))
        >>> print(f"{result.expected:.3f} ({result.worst:.3f} to {result.best:.3f})")
        0.417 (0.333 to 0.500)
    """
    images = check_images(query_codes, query_labels, database_codes, database_labels)
    cut = _check_place(len(database_codes) if at is None else at, len(database_codes), "at")
    items, relevant = distance_counts(*images)  # (Q, c+1) each
    most = _relevant_totals(relevant, empty).clamp(max=cut)  # (Q,)
    expected, worst, best = _precision_sums(items, relevant, cut) / most  # (Q,) each
    return MeanAveragePrecision(
        expected=expected.nanmean().item(),
        worst=worst.nanmean().item(),
        best=best.nanmean().item(),
        per_query=expected,
        per_query_worst=worst,
        per_query_best=best,
    )


def precision_at(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    k: int | Sequence[int],
    *,
    empty: str = "error",
) -> Tensor:
    """Expected share of relevant images among the first k: 1/k sum_d m r_d/n_d.

    m = min(n_d, max(0, k - N_d)) places of group d are inside the first k.

    Args:
        query_codes: (Q, c) in {-1, +1}.
        query_labels: (Q,) or (Q, L).
        database_codes: (N, c) in {-1, +1}.
        database_labels: (N,) or (N, L).
        k: number of results looked at, 1..N; or several of them.
        empty: "error" or "skip".

    Returns:
        float64 (Q,) in [0, 1] for one k, (len(k), Q) for several.

    Raises:
        ValueError: as `mean_average_precision`.
    """
    images = check_images(query_codes, query_labels, database_codes, database_labels)
    places = _check_places(k, len(database_codes))
    items, relevant = distance_counts(*images)
    skipped = _relevant_totals(relevant, empty).isnan()  # (Q,)
    found = torch.stack([_found(items, relevant, cut) / cut for cut in places])  # (len(k), Q)
    found = found.masked_fill(skipped, math.nan)
    return found if isinstance(k, Sequence) else found[0]


def recall_at(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    k: int | Sequence[int],
    *,
    empty: str = "error",
) -> Tensor:
    """Expected share of the relevant images that the first k hold: 1/R sum_d m r_d/n_d.

    Args, returns and errors as `precision_at`.
    """
    images = check_images(query_codes, query_labels, database_codes, database_labels)
    places = _check_places(k, len(database_codes))
    items, relevant = distance_counts(*images)
    total = _relevant_totals(relevant, empty)  # (Q,)
    found = torch.stack([_found(items, relevant, cut) / total for cut in places])  # (len(k), Q)
    return found if isinstance(k, Sequence) else found[0]


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """Hash lookup: all images within a Hamming radius of the query are returned.

    Attributes:
        radius: int64 (c+1,), 0..c.
        precision: float64 (c+1,), mean over the queries of relevant/returned images; 0 for a query that
            returns none.
        recall: float64 (c+1,), mean over the queries of relevant returned/relevant images.
        returned: float64 (c+1,), mean number of images returned.
    """

    radius: Tensor
    precision: Tensor
    recall: Tensor
    returned: Tensor


def precision_recall_curve(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    *,
    empty: str = "error",
) -> PrecisionRecallCurve:
    """Precision (R_d + r_d)/(N_d + n_d) and recall (R_d + r_d)/R of lookups within radius d = 0..c.

    Ties play no part: a lookup returns whole groups.

    Args:
        query_codes: (Q, c) in {-1, +1}.
        query_labels: (Q,) or (Q, L).
        database_codes: (N, c) in {-1, +1}.
        database_labels: (N,) or (N, L).
        empty: "error" or "skip".

    Returns:
        PrecisionRecallCurve.

    Raises:
        ValueError: as `mean_average_precision`.
    """
    images = check_images(query_codes, query_labels, database_codes, database_labels)
    items, relevant = distance_counts(*images)  # (Q, c+1) each
    total = _relevant_totals(relevant, empty)  # (Q,)
    kept = ~total.isnan()
    returned, hits = items[kept].cumsum(1).double(), relevant[kept].cumsum(1).double()  # (Q, c+1)
    return PrecisionRecallCurve(
        radius=torch.arange(items.shape[1]),
        precision=(hits / returned.clamp(min=1)).mean(0),
        recall=(hits / total[kept, None]).mean(0),
        returned=returned.mean(0),
    )


def hamming_distance(a: Tensor, b: Tensor) -> Tensor:
    """Number of differing bits, (c - a.b)/2, of every pair.

    Args:
        a: (Q, c) in {-1, +1}.
        b: (N, c) in {-1, +1}, on the same device.

    Returns:
        int64 (Q, N) in 0..c.

    Raises:
        ValueError: for codes other than -1/+1, or of different length.
    """
    a, b = check_codes(a, "a"), check_codes(b, "b")
    check_lengths(a, b, "a", "b")
    return _distance(a, b)


def top_k(query_codes: Tensor, database_codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest database images of every query, nearest first; equally distant ones in database order.

    Args:
        query_codes: (Q, c) in {-1, +1}.
        database_codes: (N, c) in {-1, +1}, on the same device.
        k: 1..N.

    Returns:
        (index, distance): int64 (Q, k) each, positions in the database and Hamming distances.

    Raises:
        ValueError: for codes other than -1/+1, or of different length, or k outside 1..N.
    """
    query_codes = check_codes(query_codes, "query_codes")
    database_codes = check_codes(database_codes, "database_codes")
    check_lengths(query_codes, database_codes, "query_codes", "database_codes")
    size = len(database_codes)
    k = _check_place(k, size, "k")
    order = torch.arange(size, device=database_codes.device)
    parts = []
    for some in query_codes.split(max(1, TILE // size)):
        key = _distance(some, database_codes) * size + order  # (q, N), no two equal in a row
        parts.append(key.topk(k, largest=False, sorted=True).values)  # (q, k)
    key = torch.cat(parts)  # (Q, k)
    return key % size, key // size


def _distance(a: Tensor, b: Tensor) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):
        return ((a.shape[1] - a.float() @ b.float().T) / 2).round().long()  # (Q, N)


def _found(items: Tensor, relevant: Tensor, cut: int) -> Tensor:
    """Expected number of relevant images in the first `cut` places: (Q, c+1) counts -> (Q,)."""
    n, r = items.double(), relevant.double()
    inside = (cut - (n.cumsum(1) - n)).clamp(min=0).minimum(n)  # (Q, c+1)
    return (inside * r / n.clamp(min=1)).sum(1)


def _precision_sums(items: Tensor, relevant: Tensor, cut: int) -> Tensor:
    """Sum of the precisions at relevant places up to `cut`, in expectation, worst and best order.

    Args:
        items: n_d, int64 (Q, c+1).
        relevant: r_d, int64 (Q, c+1).
        cut: K, 1..N.

    Returns:
        float64 (3, Q).
    """
    n, r = items.double(), relevant.double()  # (Q, c+1)
    nearer, relevant_nearer = n.cumsum(1) - n, r.cumsum(1) - r  # N_d and R_d, (Q, c+1)
    size = int(items[0].sum())
    harmonic = torch.zeros(size + 1, dtype=torch.float64)
    harmonic[1:] = torch.arange(1, size + 1, dtype=torch.float64).reciprocal().cumsum(0)

    def harmonic_between(after: Tensor, count: Tensor) -> Tensor:  # 1/(after+1) + ... + 1/(after+count)
        return harmonic[(after + count).long()] - harmonic[after.long()]

    inside = (cut - nearer).clamp(min=0).minimum(n)  # m
    f = (r - 1) / (n - 1).clamp(min=1)
    expected = inside * f + (relevant_nearer + 1 - f * (nearer + 1)) * harmonic_between(nearer, inside)
    expected = expected * r / n.clamp(min=1)  # (Q, c+1)

    def consecutive(before: Tensor) -> Tensor:
        # relevant image j = 1..r_d of the group at place before + j, with R_d + j relevant ones up to there
        count = (cut - before).clamp(min=0).minimum(r)
        return count + (relevant_nearer - before) * harmonic_between(before, count)  # (Q, c+1)

    worst, best = consecutive(nearer + n - r), consecutive(nearer)
    return torch.stack([expected, worst, best]).sum(2)  # (3, Q)


def _relevant_totals(relevant: Tensor, empty: str) -> Tensor:
    """R of each query, float64 (Q,); NaN where it is 0 and empty="skip"."""
    if empty not in ("error", "skip"):
        raise ValueError(f"empty is {empty!r}; expected 'error' or 'skip'")
    total = relevant.sum(1).double()  # (Q,)
    without = total == 0
    if without.any() and (empty == "error" or without.all()):
        raise ValueError(
            f"{int(without.sum())} of {len(total)} queries have no relevant database image (the first is "
            f"query {int(without.nonzero()[0])}); remove them, or keep others and pass empty='skip'"
        )
    return total.masked_fill(without, math.nan)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_place(k: int, size: int, name: str) -> int:
    if not _is_whole(k) or not 1 <= k <= size:
        raise ValueError(f"{name} is {k!r}; expected a number of results from 1 to {size}, the database size")
    return int(k)


def _check_places(places: int | Sequence[int], size: int) -> list[int]:
    places = places if isinstance(places, Sequence) and not isinstance(places, str) else [places]
    return [_check_place(k, size, "k") for k in places or [None]]

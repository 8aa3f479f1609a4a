"""Hamming ranking and its measures: mean average precision over all tie orders, precision, recall, curves.

A c-bit code has only c + 1 distances, so a Hamming ranking consists of a few huge groups of equally distant images and
says nothing about the order inside a group. Every measure here is the exact expectation over all orders of the tied
images (McSherry & Najork, "Computing information retrieval performance measures efficiently in the presence of tied
scores", ECIR 2008); average precision also comes with its worst and its best order.

Images enter a measure only through two counts per query and distance d: n_d, the database images at distance d, and
r_d, the relevant ones among them. Equal codes with equal labels are counted once, with their multiplicity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PAIRS_PER_CHUNK = 1 << 21
"""Query-database pairs held at once; bounds the memory of every function here, whatever the database size."""


@dataclass(frozen=True)
class MeanAveragePrecision:
    """mAP of a set of queries: the mean over tie orders and the two extreme orders.

    Attributes:
        expected: mean over queries of the expected average precision, in [0, 1].
        worst: the same when, among equally distant images, the relevant ones come last.
        best: the same when they come first.
        per_query: expected average precision of every query, float64 (Q,); NaN where the query was skipped.
        per_query_worst: as `per_query`, worst order.
        per_query_best: as `per_query`, best order.
    """

    expected: float
    worst: float
    best: float
    per_query: Tensor
    per_query_worst: Tensor
    per_query_best: Tensor

    def interval(self, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Percentile bootstrap interval of `expected` over the queries.

        Args:
            confidence: coverage, in (0, 1).
            resamples: number of bootstrap samples of the queries, at least 1.
            seed: seed of the resampling.

        Returns:
            (low, high), the (1 - confidence)/2 and (1 + confidence)/2 quantiles of the resampled means.

        Raises:
            ValueError: if an argument is out of range.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence}; it must lie strictly between 0 and 1, e.g. 0.95")
        if resamples < 1:
            raise ValueError(f"resamples is {resamples}; at least 1 is needed, e.g. 1000")
        values = self.per_query[~self.per_query.isnan()]  # (Q,)
        random = torch.Generator().manual_seed(seed)
        means = []
        step = max(1, PAIRS_PER_CHUNK // len(values))
        for start in range(0, resamples, step):
            rows = min(step, resamples - start)
            index = torch.randint(len(values), (rows, len(values)), generator=random)  # (rows, Q)
            means.append(values[index].mean(dim=1))  # (rows,)
        tail = (1 - confidence) / 2
        low, high = torch.cat(means).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
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

    With, at distance d, n items of which r are relevant, N items and R relevant items nearer, f = (r - 1)/(n - 1)
    (0 if n = 1), m = clip(K - N, 0, n) of the n items inside the cut, and harmonic numbers H,

        AP = 1/min(R_tot, K) * sum_d (r/n) * [m f + (R + 1 - f (N + 1)) (H_{N+m} - H_N)].

    `at=None` takes K = size of the database (m = n everywhere). R_tot counts all relevant database items, so an
    AP@K of 1 means that every one of the first K places that could be relevant is.

    Args:
        query_codes: (Q, c) in {-1, +1}, any integer or float dtype.
        query_labels: (Q,) integers, or multi-hot (Q, L) bool or 0/1; relevant = same label, or any label in common.
        database_codes: (N, c) in {-1, +1}.
        database_labels: (N,) or (N, L), same kind as `query_labels`.
        at: K, the number of results looked at (1 or more), or None for the whole database.
        empty: what to do with a query that has no relevant database item: "error", or "skip" (leave it out of the
            means, NaN in `per_query`).

    Returns:
        MeanAveragePrecision: expected, worst and best order.

    Raises:
        ValueError: for codes other than -1/+1, mismatched lengths, empty sets, `at` < 1, or a query without relevant
            items under empty="error".

    Source: McSherry & Najork 2008, section 2.4; the AP@K form truncates the same sum exactly inside a group.
    """
    queries, database = _check(query_codes, query_labels, database_codes, database_labels)
    cut = _check_cut(at, len(database[0]))
    items, relevant = _counts(queries, database)  # (Q, c+1) each
    total = _relevant_totals(relevant, empty)  # (Q,)
    expected, worst, best = _average_precision(items, relevant, cut) / total.clamp(max=cut)  # (3, Q)
    return MeanAveragePrecision(
        expected=expected.nanmean().item(),
        worst=worst.nanmean().item(),
        best=best.nanmean().item(),
        per_query=expected,
        per_query_worst=worst,
        per_query_best=best,
    )


def _average_precision(items: Tensor, relevant: Tensor, cut: int) -> Tensor:
    """Sums over distances, before normalisation: (Q, c+1) counts -> (3, Q) float64 expected, worst, best."""
    n, r = items.double(), relevant.double()  # (Q, c+1)
    N, R = n.cumsum(1) - n, r.cumsum(1) - r  # (Q, c+1), counts at smaller distances
    size = int(items.sum(1).max())
    harmonic = torch.zeros(size + 1, dtype=torch.float64)
    harmonic[1:] = torch.arange(1, size + 1, dtype=torch.float64).reciprocal().cumsum(0)

    def harmonic_between(low: Tensor, high: Tensor) -> Tensor:
        return harmonic[high.long()] - harmonic[low.long()]

    m = (cut - N).clamp(min=0).minimum(n)  # items of the group inside the cut
    f = (r - 1) / (n - 1).clamp(min=1)
    share = r / n.clamp(min=1)
    expected = share * (m * f + (R + 1 - f * (N + 1)) * harmonic_between(N, N + m))

    # relevant item j = 1..r of the group sits at place first + j, with R + j relevant items up to there
    def ordered(first: Tensor) -> Tensor:
        inside = (cut - first).clamp(min=0).minimum(r)
        return inside + (R - first) * harmonic_between(first, first + inside)

    return torch.stack([expected.sum(1), ordered(N + n - r).sum(1), ordered(N).sum(1)])  # (3, Q)


def hamming_distance(a: Tensor, b: Tensor) -> Tensor:
    """Number of differing bits, (c - a.b) / 2, for every pair.

    Args:
        a: (Q, c) in {-1, +1}.
        b: (N, c) in {-1, +1}.

    Returns:
        int64 (Q, N) in 0..c.

    Raises:
        ValueError: for codes other than -1/+1 or of different length.
    """
    _check_codes(a, "a")
    _check_codes(b, "b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"codes of {a.shape[1]} and of {b.shape[1]} bits cannot be compared; use one code length")
    return ((a.shape[1] - a.float() @ b.float().T) / 2).round().long()  # (Q, N)


def _check_codes(codes: Tensor, name: str) -> None:
    if codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"{name} has shape {tuple(codes.shape)}; expected (images, bits), neither of them 0")
    bad = codes.abs() != 1
    if bad.any():
        row, bit = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name}[{row}, {bit}] is {codes[row, bit].item()}; codes must be exactly -1 or +1 "
            "(take the sign, with sign(0) = +1, before ranking)"
        )


def _check_cut(at: int | None, size: int) -> int:
    if at is None:
        return size
    if isinstance(at, bool) or int(at) != at or at < 1:
        raise ValueError(f"at is {at!r}; expected a number of results, 1 or more, or None for the whole database")
    return min(int(at), size)


def _check(
    query_codes: Tensor, query_labels: Tensor, database_codes: Tensor, database_labels: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    for codes, labels, name in ((query_codes, query_labels, "query"), (database_codes, database_labels, "database")):
        _check_codes(codes, f"{name}_codes")
        if labels.ndim not in (1, 2) or len(labels) != len(codes):
            raise ValueError(
                f"{name}_labels has shape {tuple(labels.shape)} for {len(codes)} codes; expected "
                f"({len(codes)},) class numbers or ({len(codes)}, L) multi-hot rows"
            )
        if labels.is_floating_point():
            raise ValueError(f"{name}_labels is {labels.dtype}; expected integers (or bool multi-hot rows)")
        if labels.ndim == 2 and ((labels != 0) & (labels != 1)).any():
            worst = labels[(labels != 0) & (labels != 1)][0].item()
            raise ValueError(f"{name}_labels contains {worst}; multi-hot rows hold only 0 and 1")
    if query_codes.shape[1] != database_codes.shape[1]:
        raise ValueError(
            f"query codes have {query_codes.shape[1]} bits, database codes {database_codes.shape[1]}; "
            "encode both with the same network"
        )
    if query_labels.shape[1:] != database_labels.shape[1:]:
        raise ValueError(
            f"query_labels {tuple(query_labels.shape)} and database_labels {tuple(database_labels.shape)} are of "
            "different kinds; use class numbers for both, or multi-hot rows of equal width for both"
        )
    return (query_codes, query_labels), (database_codes, database_labels)


def _relevant_totals(relevant: Tensor, empty: str) -> Tensor:
    """Relevant items per query, float64 (Q,), with NaN for a query that has none under empty="skip"."""
    if empty not in ("error", "skip"):
        raise ValueError(f"empty is {empty!r}; expected 'error' or 'skip'")
    total = relevant.sum(1).double()  # (Q,)
    without = total == 0
    if without.any() and (empty == "error" or without.all()):
        raise ValueError(
            f"{int(without.sum())} of {len(total)} queries have no relevant database item (the first is query "
            f"{int(without.nonzero()[0])}); remove them, or pass empty='skip' to leave them out of the mean"
        )
    return total.masked_fill(without, float("nan"))


def _counts(queries: tuple[Tensor, Tensor], database: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Database items and relevant items per query and distance: two int64 (Q, c+1)."""
    query_rows, query_of, _ = _distinct(*queries)
    rows, _, weight = _distinct(*database)
    query_codes, query_labels = (part[query_rows] for part in queries)
    codes, labels = (part[rows] for part in database)
    bits = codes.shape[1]
    query_codes, codes = query_codes.float(), codes.float()
    bins = 2 * (bits + 1)
    weight = weight.double()
    parts = []
    columns = min(len(codes), PAIRS_PER_CHUNK)
    step = max(1, PAIRS_PER_CHUNK // columns)
    for start in range(0, len(query_codes), step):
        q, q_labels = query_codes[start : start + step], query_labels[start : start + step]
        histogram = torch.zeros(len(q) * bins, dtype=torch.float64)
        for left in range(0, len(codes), columns):
            here = slice(left, left + columns)
            distance = ((bits - q @ codes[here].T) / 2).round().long()  # (q, n)
            if labels.ndim == 1:
                same = q_labels[:, None] == labels[here]  # (q, n)
            else:
                same = q_labels.float() @ labels[here].float().T > 0  # (q, n)
            key = distance + same * (bits + 1) + torch.arange(len(q))[:, None] * bins  # (q, n)
            histogram += torch.bincount(key.flatten(), weight[here].repeat(len(q)), minlength=len(histogram))
        parts.append(histogram.view(len(q), 2, bits + 1))  # (q, other/relevant, c+1)
    histogram = torch.cat(parts).long()[query_of]  # (Q, 2, c+1)
    return histogram.sum(1), histogram[:, 1]


def _distinct(codes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Groups of equal (code, label): a representative row of each, the group of each row, the group sizes."""
    rows = torch.cat([codes.to(torch.int8), labels.reshape(len(codes), -1).long()], dim=1)  # (N, c+L)
    _, group, size = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    first = torch.empty(len(size), dtype=torch.long)
    first[group] = torch.arange(len(group))
    return first, group, size

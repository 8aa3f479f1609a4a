"""What a Hamming ranking is made of: how many images, and relevant images, lie at each distance from a query.

Every measure in `pplkit.retrieval` is a function of these counts. Equal codes with equal labels are counted
once, with their multiplicity, and there are two ways to count:

- `_cube_counts`, for short codes: all 2^c codes at once, bit by bit. The cost depends on the code length and
  on the number of labels, not on the number of images.
- `_pair_counts`, for long codes: a matrix product whose entries are histogram bins.

`distance_counts` takes the cheaper one. Both count integers exactly, so they agree to the last bit.
Everything runs on the CPU, in memory bounded by `TILE` and `ITEMS`, whatever the size of the database.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TILE = 1 << 20
"""Query-database pairs (or histogram bins) held at once."""
ITEMS = 1 << 15
"""Database images taken at once."""
CUBE_BITS = 20
"""Longest code for which all 2^c codes are tabulated."""


class Coded(NamedTuple):
    """Images as a ranking sees them.

    Attributes:
        codes: int8 (N, c) in {-1, +1}, on the CPU.
        labels: int64 (N,) class numbers in 0..2^31 - 1, or bool (N, L) multi-hot, on the CPU.
    """

    codes: Tensor
    labels: Tensor

    def take(self, rows: Tensor | slice) -> Coded:
        """The images at `rows`."""
        return Coded(self.codes[rows], self.labels[rows])


@torch.autocast("cpu", enabled=False)
def distance_counts(queries: Coded, database: Coded) -> tuple[Tensor, Tensor]:
    """Database images and relevant database images at every Hamming distance from every query.

    Args:
        queries: Q images.
        database: N images, same code length and kind of labels.

    Returns:
        (items, relevant), int64 (Q, c+1) each: n_d and r_d for d = 0..c. Relevant = same class, or, for
        multi-hot labels, at least one label in common.
    """
    bits = queries.codes.shape[1]
    first, query_of, _ = _groups([*_label_words(queries.labels), *_words(queries.codes > 0)])
    queries = queries.take(first)  # distinct from here on, and ordered by label
    first, _, size = _groups([*_label_words(database.labels), *_words(database.codes > 0)])
    label_sets = len(_groups(_label_words(queries.labels))[0])
    cube_work = (label_sets + 1) * 2**bits * bits * (bits + 1) / 2
    if bits <= CUBE_BITS and cube_work < len(queries.codes) * len(first):
        counts = _cube_counts(queries, database.take(first), size)  # (Q', 2, c+1), Q' distinct queries
    else:
        once = size == 1  # weights cost time, most long codes need none
        counts = _pair_counts(queries, database.take(first[once]), None)
        counts += _pair_counts(queries, database.take(first[~once]), size[~once])
    counts = counts[query_of]  # (Q, 2, c+1)
    return counts[:, 0], counts[:, 1]


def _groups(words: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that agree in every word, ordered by the first word.

    Args:
        words: int64 (N,) each, in 0..2^32 - 1.

    Returns:
        (first, group, size): int64 (G,) one row of each group, int64 (N,) the group of each row, int64 (G,).
    """
    group, *rest = words
    for word in rest or [torch.zeros_like(group)]:
        _, group, size = torch.unique(group << 32 | word, return_inverse=True, return_counts=True)
    first = torch.empty_like(size)
    first[group] = torch.arange(len(group))
    return first, group, size


def _words(bits: Tensor) -> list[Tensor]:
    """Bool rows (N, c) as ceil(c/32) int64 (N,) numbers; bit k of word w is column 32 w + k."""
    packed = np.packbits(bits.numpy(), axis=1, bitorder="little")  # (N, ceil(c/8))
    padded = np.zeros((len(packed), -(-packed.shape[1] // 4) * 4), np.uint8)  # (N, 4 ceil(c/32))
    padded[:, : packed.shape[1]] = packed
    return list(torch.from_numpy(padded.view("<u4").astype(np.int64)).unbind(1))


def _label_words(labels: Tensor) -> list[Tensor]:
    return [labels] if labels.ndim == 1 else _words(labels)


def _relevant(query_labels: Tensor, labels: Tensor) -> Tensor:
    """Bool (Q, N): same class, or some label in common."""
    if labels.ndim == 1:
        return query_labels[:, None] == labels
    parts = [query_labels.float() @ part.float().T > 0 for part in labels.split(ITEMS)]
    return torch.cat(parts, dim=1)


def _cube_counts(queries: Coded, database: Coded, weight: Tensor) -> Tensor:
    """Counts around all 2^c codes, looked up at the queries: int64 (Q, 2, c+1), all items and relevant ones.

    Let h(x, d) be the number of images whose code differs from x in d of its first b bits and agrees with x
    in the others. For b = 0 it counts the images with code x; with one bit more, h(x, d) <- h(x, d) + h(x
    with that bit flipped, d - 1); for b = c it counts the images at distance d from x.
    """
    bits = queries.codes.shape[1]
    (query_code,), (code,) = _words(queries.codes > 0), _words(database.codes > 0)
    weight = weight.int()
    first, query_label, _ = _groups(_label_words(queries.labels))
    label_sets = queries.labels[first]  # (T,) or (T, L)

    def around(items: Tensor) -> Tensor:  # T weightings of the images (T, n) -> (2^c, c+1, T)
        h = torch.zeros(2**bits, bits + 1, len(items), dtype=torch.int32)
        h[:, 0].index_add_(0, code, items.T.contiguous())
        for bit in range(bits):
            off, on = h.view(-1, 2, 2**bit, bits + 1, len(items)).unbind(1)
            before = off[:, :, : bit + 1].clone()
            off[:, :, 1 : bit + 2] += on[:, :, : bit + 1]
            on[:, :, 1 : bit + 2] += before
        return h

    counts = torch.empty(len(query_code), 2, bits + 1, dtype=torch.int64)
    counts[:, 0] = around(weight[None])[query_code, :, 0]
    step = max(1, 16 * TILE // max(2**bits * (bits + 1), len(code)))
    for start in range(0, len(label_sets), step):
        relevant = _relevant(label_sets[start : start + step], database.labels)  # (T, n)
        table = around(relevant * weight)  # (2^c, c+1, T)
        here = (query_label >= start) & (query_label < start + step)
        counts[here, 1] = table[query_code[here], :, query_label[here] - start].long()
    return counts


def _pair_counts(queries: Coded, database: Coded, weight: Tensor | None) -> Tensor:
    """Counts from all query-item pairs: int64 (Q, 2, c+1), all items and relevant ones.

    The bin of a pair is d + (c+1) s, with d = (c - q.b)/2 its distance and s the number of labels in common.
    It is the product of the row [-q/2, c/2, (c+1) labels of q] with the column [b, 1, labels of b], so one
    matrix product gives the bins of all pairs, ready to be counted. Where it pays, two queries share a row:
    of B bins, row + B row' has the entries bin + B bin', which halves the product and the counting.
    """
    count, bits = queries.codes.shape
    counts = torch.zeros(count, 2, bits + 1, dtype=torch.int64)
    if len(database.codes) == 0:
        return counts
    width, most = 0, 1  # multi-hot width; labels that a query and an item can have in common
    if queries.labels.ndim == 2:
        width = queries.labels.shape[1]
        most = max(1, int(torch.minimum(queries.labels.sum(1).max(), database.labels.sum(1).max())))
    items = max(1, min(ITEMS, len(database.codes), 16 * TILE // (bits + 1 + width)))
    bins = (bits + 1) * (most + 1)
    paired = bins * bins <= 2 * items
    row_bins = bins * bins if paired else bins
    step = max(1, TILE // max(items, row_bins)) * (2 if paired else 1)  # queries at once
    dtype = torch.float32 if _products_are_exact() else torch.float64  # entries are integers below 2^21
    columns = torch.empty(bits + 1 + (width or min(step, count)), items, dtype=dtype)  # (c+1+A, n)

    for left in range(0, len(database.codes), items):
        part = database.take(slice(left, left + items))
        part_weight = None if weight is None else weight[left : left + items].double()  # (n,)
        columns = columns[:, : len(part.codes)]
        columns[:bits] = part.codes.T.contiguous()  # (c, n)
        columns[bits] = 1
        for start in range(0, count, step):
            stop = min(start + step, count)
            some = torch.arange(start, stop + (stop - start) % 2 * paired).clamp(max=count - 1)
            codes, labels = queries.take(some)  # (q, c), an even number if they share rows
            ours, theirs = _label_columns(labels, part.labels)  # (q, A), (A, n)
            middle = torch.full((len(codes), 1), bits / 2)
            rows = torch.cat([codes / -2, middle, (bits + 1) * ours], dim=1).to(dtype)  # (q, c+1+A)
            if paired:
                rows = rows[0::2] + bins * rows[1::2]  # (q/2, c+1+A)
            rows[:, bits] += torch.arange(len(rows)) * row_bins  # each row counts into bins of its own
            columns[bits + 1 : rows.shape[1]] = theirs
            entries = (rows @ columns[: rows.shape[1]]).int().flatten()  # (rows n,)
            repeated = None if part_weight is None else part_weight.repeat(len(rows))  # (rows n,)
            histogram = torch.bincount(entries, repeated, minlength=len(rows) * row_bins)
            if paired:
                histogram = histogram.view(-1, bins, bins)  # (q/2, bin', bin)
                histogram = torch.stack([histogram.sum(1), histogram.sum(2)], dim=1)  # (q/2, 2, bin)
            histogram = histogram.view(-1, most + 1, bits + 1)[: stop - start].long()  # (q, s, d)
            counts[start:stop, 0] += histogram.sum(1)
            counts[start:stop, 1] += histogram[:, 1:].sum(1)
    return counts


def _products_are_exact() -> bool:
    """Whether float32 products have float32's precision; False also if torch does not say (newer switches for TF32 in use)."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:
        return False


def _label_columns(query_labels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """0/1 factors (Q, A), (A, n) of the number of labels in common; A: the labels that these queries have."""
    if labels.ndim == 1:
        present = query_labels.unique()  # (A,)
        return query_labels[:, None] == present, present[:, None] == labels
    present = query_labels.any(0)  # (L,)
    return query_labels[:, present], labels[:, present].T


def check_images(
    query_codes: Tensor, query_labels: Tensor, database_codes: Tensor, database_labels: Tensor
) -> list[Coded]:
    """Queries and database as a ranking needs them; ValueError for anything that cannot be ranked."""
    images = []
    for codes, labels, name in (
        (query_codes, query_labels, "query"),
        (database_codes, database_labels, "database"),
    ):
        codes = check_codes(codes, f"{name}_codes").cpu()
        images.append(Coded(codes, check_labels(labels, len(codes), f"{name}_labels").cpu()))
    check_lengths(query_codes, database_codes, "query_codes", "database_codes")
    if query_labels.shape[1:] != database_labels.shape[1:]:
        raise ValueError(
            f"query_labels {tuple(query_labels.shape)} and database_labels "
            f"{tuple(database_labels.shape)} do not fit; give class numbers for both, or "
            "multi-hot rows of the same width for both"
        )
    return images


def _check_tensor(value: Tensor, name: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{name} is of type {type(value).__name__}; expected a torch tensor (torch.as_tensor makes one "
            "of a list or an array)"
        )


def check_codes(codes: Tensor, name: str) -> Tensor:
    """Checked codes as int8."""
    _check_tensor(codes, name)
    if codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"{name} has shape {tuple(codes.shape)}; expected (images, bits), neither of them 0")
    if codes.dtype == torch.bool or codes.is_complex():
        raise ValueError(f"{name} is {codes.dtype}; expected numbers -1 and +1 (for bits b: 2 * b - 1)")
    codes = codes.detach()
    size = codes.abs()
    if size.min() != 1 or size.max() != 1:
        row, bit = (size != 1).nonzero()[0].tolist()
        raise ValueError(
            f"{name}[{row}, {bit}] is {codes[row, bit].item()}; codes must be exactly -1 or +1 "
            "(binarise with sign, where sign(0) = +1)"
        )
    return codes.to(torch.int8)


def check_lengths(a: Tensor, b: Tensor, a_name: str, b_name: str) -> None:
    """ValueError unless both have the same number of bits."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{a_name} has {a.shape[1]} bits, {b_name} {b.shape[1]}; encode both with the same network"
        )


def check_labels(labels: Tensor, count: int, name: str) -> Tensor:
    """Checked labels as int64 class numbers or bool multi-hot rows."""
    _check_tensor(labels, name)
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise ValueError(
            f"{name} has shape {tuple(labels.shape)} for {count} codes; expected ({count},) class numbers or "
            f"({count}, L) multi-hot rows"
        )
    if labels.is_floating_point() or labels.is_complex() or (labels.ndim == 1 and labels.dtype == torch.bool):
        raise ValueError(
            f"{name} is {labels.dtype}; expected integer class numbers, or multi-hot rows of bool or 0/1"
        )
    top = 2**31 - 1 if labels.ndim == 1 else 1
    if labels.numel() == 0 or labels.min() < 0 or labels.max() > top:
        bad = [value for value in labels.flatten().tolist() if not 0 <= value <= top]
        found = f"contains {bad[0]}" if bad else f"has shape {tuple(labels.shape)}"
        raise ValueError(f"{name} {found}; expected class numbers 0, 1, 2, ..., or multi-hot rows of 0 and 1")
    return labels.long() if labels.ndim == 1 else labels.bool()

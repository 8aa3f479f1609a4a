"""Speed of `mean_average_precision` beside the ranking loop of deep-hashing repositories and torchmetrics.

    python -m tests.benchmarks.bench_retrieval [--bits 8 64] [--output FILE]

One run measures all of them on the same codes: 1,000 queries, 59,000 database images, 10 classes. Two kinds
of codes: "clustered", a class centre with image-dependent bit flips and some confused classes, as trained
networks give; and "random", independent bits, where hardly a code repeats, the worst case of counting by
distinct codes. The results are checked against each other: the loop and torchmetrics break ties in some
order, so their mAP must lie between our worst and our best.
"""

import argparse
import os
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torchmetrics
from torchmetrics.retrieval import RetrievalMAP

from pplkit.retrieval import MeanAveragePrecision, mean_average_precision
from pplkit.storage import provenance, save_json

OUTPUT = Path(__file__).parents[2] / "data" / "results" / "benchmark-retrieval.json"
CLASSES = 10
BITS = (8, 12, 16, 24, 32, 48, 64)
QUERIES, DATABASE = 1_000, 59_000
TORCHMETRICS_QUERIES = 50
REPEATS = 5


def clustered(count: int, centres: torch.Tensor, random: torch.Generator):
    """Codes around a class centre: every image has its own flip rate, one in eight follows another class."""
    labels = torch.randint(CLASSES, (count,), generator=random)
    confused = torch.rand(count, generator=random) < 0.125
    shown = torch.where(confused, torch.randint(CLASSES, (count,), generator=random), labels)
    rate = 0.3 * torch.rand(count, 1, generator=random) ** 4  # median 0.02, mean 0.06
    flip = torch.rand(count, centres.shape[1], generator=random) < rate
    return torch.where(flip, -centres[shown], centres[shown]).to(torch.int8), labels


def uniform(count: int, centres: torch.Tensor, random: torch.Generator):
    """Independent random bits and labels."""
    codes = torch.randint(0, 2, (count, centres.shape[1]), generator=random) * 2 - 1
    return codes.to(torch.int8), torch.randint(CLASSES, (count,), generator=random)


KINDS = {"clustered": clustered, "random": uniform}


def make(kind: str, bits: int, counts: tuple[int, int]):
    """(codes, labels) of the queries and of the database."""
    random = torch.Generator().manual_seed(bits)
    centres = torch.randint(0, 2, (CLASSES, bits), generator=random) * 2 - 1
    return [KINDS[kind](count, centres, random) for count in counts]


def ranking_loop(query_codes, query_labels, database_codes, database_labels) -> float:
    """mAP as deep-hashing repositories compute it, query after query; float32 codes, one-hot labels."""
    total = 0.0
    for code, label in zip(query_codes, query_labels, strict=True):
        relevant = (label @ database_labels.T > 0).astype(np.float32)
        distance = 0.5 * (database_codes.shape[1] - code @ database_codes.T)
        ranked = relevant[np.argsort(distance)]
        places = np.flatnonzero(ranked) + 1.0
        total += np.mean(np.arange(1, len(places) + 1) / places)
    return total / len(query_codes)


def with_torchmetrics(queries: tuple, database: tuple) -> float:
    """mAP by torchmetrics.retrieval.RetrievalMAP, from similarities 1..c+1 (it ignores scores <= 0)."""
    (codes, labels), (database_codes, database_labels) = queries, database
    metric = RetrievalMAP()
    metric.update(
        ((codes.shape[1] + codes.float() @ database_codes.float().T) / 2 + 1).flatten(),
        (labels[:, None] == database_labels).flatten(),
        indexes=torch.arange(len(codes)).repeat_interleave(len(database_codes)),
    )
    return metric.compute().item()


def seconds(function, *arguments, repeats: int = 1):
    """(median wall time of `repeats` calls, last result)."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments)
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def between(value: float, result: MeanAveragePrecision) -> float:
    """`value`, if some tie order gives it."""
    if not result.worst - 1e-5 <= value <= result.best + 1e-5:
        raise AssertionError(
            f"mAP {value} is outside [{result.worst}, {result.best}], the range of tie orders"
        )
    return value


def compare(kind: str, bits: int) -> dict:
    """One row of the table: three implementations on the same codes."""
    queries, database = make(kind, bits, (QUERIES, DATABASE))
    ours, result = seconds(mean_average_precision, *queries, *database, repeats=REPEATS)

    one_hot = np.eye(CLASSES, dtype=np.float32)
    arrays = [(codes.float().numpy(), one_hot[labels]) for codes, labels in (queries, database)]
    loop, loop_map = seconds(ranking_loop, *arrays[0], *arrays[1])

    some = tuple(part[:TORCHMETRICS_QUERIES] for part in queries)
    some_result = mean_average_precision(*some, *database)
    metrics, metrics_map = seconds(with_torchmetrics, some, database)
    metrics *= QUERIES / TORCHMETRICS_QUERIES
    return {
        "codes": kind,
        "bits": bits,
        "distinct_database_codes": len(torch.unique(database[0], dim=0)),
        "ours_s": ours,
        "loop_s": loop,
        "torchmetrics_s_scaled": metrics,
        "loop_over_ours": loop / ours,
        "torchmetrics_over_ours": metrics / ours,
        "expected": result.expected,
        "worst": result.worst,
        "best": result.best,
        "loop_map": between(loop_map, result),
        "torchmetrics_map_part": between(metrics_map, some_result),
    }


def large(kind: str) -> dict:
    """10,000 queries against 60,000 images at 16 bits, ours only."""
    queries, database = make(kind, 16, (10_000, 60_000))
    return {"codes": kind, "ours_s": seconds(mean_average_precision, *queries, *database, repeats=REPEATS)[0]}


def main() -> None:
    """Measure, print the table, store the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Metric `RetrievalMAP` will save all targets")

    threads = torch.get_num_threads()
    print(f"{QUERIES} queries x {DATABASE} images, {threads} threads; seconds; x: times slower than ours")
    heading = ("codes", "bits", "distinct", "ours", "loop", "x", "torchmetrics", "x", "mAP (worst-best)")
    print("{:>9} {:>4} {:>8} {:>8} {:>8} {:>6} {:>12} {:>7}  {}".format(*heading))
    rows = []
    for kind in KINDS:
        for bits in arguments.bits:
            row = compare(kind, bits)
            rows.append(row)
            cells = (
                f"{kind:>9} {bits:>4} {row['distinct_database_codes']:>8} {row['ours_s']:>8.4f}",
                f"{row['loop_s']:>8.2f} {row['loop_over_ours']:>6.0f}",
                f"{row['torchmetrics_s_scaled']:>12.1f} {row['torchmetrics_over_ours']:>7.0f}",
                f" {row['expected']:.3f} ({row['worst']:.3f}-{row['best']:.3f})",
            )
            print(*cells, flush=True)
    big = [large(kind) for kind in KINDS]
    for row in big:
        print(f"10000 x 60000 at 16 bits, {row['codes']}: {row['ours_s']:.3f} s")
    save_json(
        arguments.output,
        {
            **provenance("cpu"),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "numpy": np.__version__,
            "torchmetrics": torchmetrics.__version__,
            "queries": QUERIES,
            "database": DATABASE,
            "timing": f"ours: median of {REPEATS} calls; loop: one call; torchmetrics: one call with "
            f"{TORCHMETRICS_QUERIES} queries, scaled to {QUERIES}",
            "rows": rows,
            "queries_10000_database_60000_bits_16": big,
        },
    )
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()

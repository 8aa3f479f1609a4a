"""The ways of counting against each other and against the distances, whatever the settings of precision."""

import subprocess
import sys

import pytest
import torch
from coded_images import multi_hot, random_images

from pplkit import distance_counts
from pplkit.retrieval import hamming_distance


def counts(monkeypatch, queries, database, **limits):
    for name, value in limits.items():
        monkeypatch.setattr(distance_counts, name, value)
    images = distance_counts.check_images(*queries, *database)
    result = distance_counts.distance_counts(*images)
    monkeypatch.undo()
    return result


@pytest.mark.parametrize("labels", ["classes", "many classes", "multi-hot", "wide multi-hot"])
@pytest.mark.parametrize("bits", [3, 9])
def test_all_ways_of_counting_agree(monkeypatch, labels, bits):
    queries, database = random_images(41, bits, seed=1), random_images(500, bits, seed=2)
    if labels == "many classes":
        queries, database = random_images(41, bits, 99, seed=1), random_images(500, bits, 99, seed=2)
    elif labels != "classes":
        width, share = (6, 0.4) if labels == "multi-hot" else (40, 0.05)
        queries, database = (
            (codes, multi_hot(len(codes), width, share, seed=len(codes))) for codes, _ in (queries, database)
        )
    cube = counts(monkeypatch, queries, database)
    distances = hamming_distance(queries[0], database[0])
    for distance in range(bits + 1):
        assert torch.equal(cube[0][:, distance], (distances == distance).sum(1))
    variants = (
        {"CUBE_BITS": 0},
        {"CUBE_BITS": 0, "ITEMS": 101},
        {"CUBE_BITS": 0, "TILE": 1 << 13},
        {"CUBE_BITS": 0, "ITEMS": 101, "TILE": 1 << 10},
        {"TILE": 1 << 9},
    )
    for limits in variants:
        for part, reference in zip(counts(monkeypatch, queries, database, **limits), cube, strict=True):
            assert torch.equal(part, reference), limits


TF32 = """
import torch
torch.backends.fp32_precision = "tf32"
from pplkit.retrieval import mean_average_precision
codes, labels = torch.ones(4, 40), torch.arange(4) % 2
print(mean_average_precision(codes, labels, codes, labels).expected)
"""


def test_counts_survive_the_newer_switches_for_reduced_precision():
    run = subprocess.run([sys.executable, "-c", TF32], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr  # the older getter raises then
    places = (1 + 5 / 6 + 3 / 4 + 7 / 12 + 1 / 2 + 5 / 12) / 6  # AP of two relevant images at any two of four places
    assert float(run.stdout) == pytest.approx(places, abs=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("bits", [48, 127, 200])
def test_counts_survive_reduced_precision(monkeypatch, bits, precision, autocast):
    queries, database = random_images(21, bits, seed=1), random_images(3000, bits, seed=2)
    exact = counts(monkeypatch, queries, database)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            reduced = counts(monkeypatch, queries, database)
            distances = hamming_distance(queries[0], database[0])
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(exact[0], reduced[0]) and torch.equal(exact[1], reduced[1])
    agreement = queries[0].double() @ database[0].double().T
    assert torch.equal(distances, ((bits - agreement) / 2).long())

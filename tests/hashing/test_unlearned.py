"""The unlearned baselines: directions, the Procrustes step, and an error that never rises."""

import math

import pytest
import torch

from pplkit import data, retrieval
from pplkit.hashing.unlearned import itq, principal_components, random_projection, rotation


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return data.load("fashion-mnist-mini").train.images[:600]


def random_rotation(size: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=random, dtype=torch.float64))[0]


def test_code_is_the_sign_of_each_projection(images):
    hashed = random_projection(images, 5, seed=3)
    codes = hashed.encode(images[:20])
    assert codes.dtype == torch.int8 and codes.shape == (20, 5)
    for i in range(20):
        centred = images[i].flatten() / 255 - hashed.mean
        for k in range(5):
            assert codes[i, k] == (1 if float(centred @ hashed.directions[:, k]) >= 0 else -1)


def test_shorter_random_codes_are_prefixes(images):
    long, short = random_projection(images, 12, seed=1), random_projection(images, 7, seed=1)
    assert torch.equal(long.directions[:, :7], short.directions)
    assert not torch.equal(short.directions, random_projection(images, 7, seed=2).directions)


def test_expected_distance_is_the_angle(images):
    hashed = random_projection(images, 4000, seed=0)
    a, b = images[:30], images[30:60]
    centred = [(part.flatten(1) / 255 - hashed.mean) for part in (a, b)]
    angle = torch.nn.functional.cosine_similarity(*centred).acos()
    share = (hashed.encode(a) != hashed.encode(b)).float().mean(1)
    assert (share - angle / math.pi).abs().max() < 4 * 0.5 / math.sqrt(4000)


def test_components_agree_with_svd(images):
    hashed = principal_components(images, 6)
    centred = (images.flatten(1) / 255 - hashed.mean).double()
    _, _, right = torch.linalg.svd(centred, full_matrices=False)
    cosine = (right[:6].T * hashed.directions.double()).sum(0)
    torch.testing.assert_close(cosine.abs(), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-5)
    largest = hashed.directions.gather(0, hashed.directions.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())


@pytest.mark.parametrize("size", [1, 2, 5])
def test_rotation_recovers_a_known_one(size):
    random = torch.Generator().manual_seed(size)
    codes = torch.where(torch.randn(50, size, generator=random) >= 0, 1, -1)
    turn = random_rotation(size, size)
    torch.testing.assert_close(rotation(codes.double() @ turn.T, codes), turn)


def test_no_other_rotation_is_nearer():
    random = torch.Generator().manual_seed(0)
    projected = torch.randn(40, 4, generator=random, dtype=torch.float64)
    codes = torch.where(torch.randn(40, 4, generator=random) >= 0, 1, -1)
    best = rotation(projected, codes)
    torch.testing.assert_close(best.T @ best, torch.eye(4, dtype=torch.float64))
    error = (codes - projected @ best).square().sum()
    for seed in range(200):
        assert error <= (codes - projected @ random_rotation(4, seed)).square().sum()


def test_itq_error_never_rises_and_ends_below_its_start(images):
    history = itq(images, 8, iterations=30).history
    assert len(history) == 30
    assert all(later <= earlier + 1e-12 for earlier, later in zip(history, history[1:], strict=False))
    assert history[-1] < 0.95 * history[0]


def test_itq_directions_are_orthonormal_and_span_the_components(images):
    hashed, components = itq(images, 8, iterations=5), principal_components(images, 8)
    torch.testing.assert_close(hashed.directions.T @ hashed.directions, torch.eye(8), rtol=0, atol=1e-4)
    inside = components.directions @ (components.directions.T @ hashed.directions)
    torch.testing.assert_close(inside, hashed.directions, rtol=0, atol=1e-4)


def test_itq_is_seeded(images):
    assert torch.equal(itq(images, 4, 3, seed=5).directions, itq(images, 4, 3, seed=5).directions)
    assert not torch.equal(itq(images, 4, 3, seed=5).directions, itq(images, 4, 3, seed=6).directions)


@pytest.mark.parametrize("count", [1, 5])
def test_itq_needs_images_that_differ(count):
    with pytest.raises(ValueError, match=f"images that differ, but all {count} are the same"):
        itq(torch.full((count, 1, 3, 3), 77, dtype=torch.uint8), 2)


def test_directions_lie_where_the_images_do():
    there = random_projection(torch.zeros(9, 1, 2, 2, dtype=torch.uint8, device="meta"), 3)
    assert there.mean.device == there.directions.device == torch.device("meta")


def test_itq_ranks_better_than_random_directions():
    split = data.load("fashion-mnist-mini")

    def score(hashed) -> float:
        query, database = hashed.encode(split.query.images), hashed.encode(split.database.images)
        return retrieval.mean_average_precision(query, split.query.labels, database, split.database.labels).expected

    images = split.train.images[:1000]
    assert score(itq(images, 16, 20)) > score(random_projection(images, 16)) + 0.05


def test_bad_arguments(images):
    for fit in (random_projection, principal_components, itq):
        with pytest.raises(ValueError, match="got 0"):
            fit(images, 0)
        with pytest.raises(ValueError, match="uint8"):
            fit(images.float(), 4)
        with pytest.raises(ValueError, match="empty"):
            fit(images[:0], 4)
    with pytest.raises(ValueError, match="no more than 784"):
        principal_components(images, 785)
    with pytest.raises(ValueError, match="iterations"):
        itq(images, 4, iterations=0)
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        rotation(torch.zeros(4, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="784"):
        random_projection(images, 4).encode(images[:, :, :20])

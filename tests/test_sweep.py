"""A sweep over ε gives what the package gives for each ε alone."""

import threading

import pytest
import torch

from pplkit import budget, hashing, quality, retrieval
from pplkit.data import ImageSet, RetrievalSplit
from pplkit.generator import PerturbationGenerator
from pplkit.scenarios import SCENARIOS, encode_scenarios, evaluate_scenarios
from pplkit.sweep import EpsilonSweep, Patterns


def images(size, seed, channels=1):
    random = torch.Generator().manual_seed(seed)
    return ImageSet(torch.randint(0, 256, (size, channels, 12, 12), generator=random, dtype=torch.uint8),
                    torch.randint(0, 3, (size,), generator=random))


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return PerturbationGenerator(1, (4, 4)).eval()


@pytest.fixture(scope="module")
def victim():
    data = images(30, 5)
    return hashing.DSDH(6, epochs=1, backbone="dense", seed=0).fit(data.images, data.labels, progress=False)


@pytest.fixture(scope="module")
def split():
    database = images(40, 1)
    index = torch.arange(10)
    return RetrievalSplit("tiny", ("a", "b", "c"), database.subset(index), images(9, 2), database, index, {})


@pytest.fixture
def sweep(generator, victim, split):
    return EpsilonSweep(victim, Patterns(generator, split.query, split.database))


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.37, 1.0])
def test_codes_and_map_equal_those_of_the_scenarios(generator, victim, split, epsilon, norm):
    def protect(batch):
        return budget.protect(batch, generator, epsilon, norm)

    sweep = EpsilonSweep(victim, Patterns(generator, split.query, split.database), norm)
    expected, found = encode_scenarios(victim, split, protect), sweep.codes(epsilon)
    for scenario in SCENARIOS:
        assert all(map(torch.equal, expected.of(scenario), found.of(scenario)))
    results = evaluate_scenarios(victim, split, protect)
    assert {s: r.expected for s, r in sweep.evaluate(epsilon).items()} == {s: r.expected for s, r in results.items()}


@pytest.mark.parametrize("batch_size", [1, 4, 512])
def test_the_size_of_the_generators_batches_does_not_matter(generator, split, batch_size):
    patterns = Patterns(generator, split.query, split.database, batch_size)
    assert torch.equal(patterns.protect("database", 0.2), budget.protect(split.database.images, generator, 0.2))
    chosen = torch.tensor([3, 1])
    assert torch.equal(patterns.protect("query", 0.2, "2", chosen),
                       budget.protect(split.query.images, generator, 0.2, "2")[chosen])


def test_the_view_shows_the_searches(sweep, generator, victim, split):
    early = sweep.look(4, 0.3, neighbours=5)
    assert set(early.results) == {"C->C", "A->C"} and early.mean == {}
    assert 0.3 not in sweep
    sweep.evaluate(0.3)
    view = sweep.look(4, 0.3, neighbours=5)
    assert set(view.mean) == set(view.results) == set(SCENARIOS) and 0.3 in sweep
    protected = {part: budget.protect(getattr(split, part).images, generator, 0.3) for part in ("query", "database")}
    searched = {"C": split.database.images, "A": protected["database"]}
    asked = {"C": split.query.images[4:5], "A": protected["query"][4:5]}
    for scenario in SCENARIOS:
        q, d = scenario.split("->")
        top, _ = retrieval.top_k(victim.encode(asked[q]), victim.encode(searched[d]), 5)
        assert torch.equal(view.top[scenario], top[0])
        assert torch.equal(view.results[scenario], searched[d][top[0]])
        assert torch.equal(view.relevant(scenario), split.database.labels[top[0]] == split.query.labels[4])
    assert torch.equal(view.protected, protected["query"][4])
    assert view.psnr == float(quality.psnr(split.query.images[4:5], protected["query"][4:5]))
    assert f"{view.flipped} of 6 bits flipped" in view.text
    for scenario in early.top:
        assert torch.equal(early.top[scenario], view.top[scenario])


def test_epsilon_zero_changes_nothing(sweep):
    sweep.evaluate(0.0)
    view = sweep.look(0, 0.0)
    assert view.flipped == 0 and view.psnr == float("inf") and view.ssim == 1
    assert len({tuple(top.tolist()) for top in view.top.values()}) == 1 and len(set(view.mean.values())) == 1


def test_an_epsilon_is_encoded_once_and_the_curve_is_in_order(generator, victim, split):
    class Counting:
        bits, calls = 6, 0

        def encode(self, images):
            self.calls += 1
            return victim.encode(images)

    counting = Counting()
    sweep = EpsilonSweep(counting, Patterns(generator, split.query, split.database))
    threads = [threading.Thread(target=sweep.evaluate, args=(epsilon,)) for epsilon in (0.5, 0.1, 0.5, 0.1, 0.5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counting.calls == 2 + 2 * 2  # the clean parts, and both parts at two ε
    assert all(list(points) == [0.1, 0.5] for points in sweep.curve.values())


def test_the_database_meets_the_generator_only_when_it_is_needed(split, victim):
    seen = []

    def counting(batch):
        seen.append(len(batch))
        return torch.ones_like(batch)

    sweep = EpsilonSweep(victim, Patterns(counting, split.query, split.database))
    sweep.look(0, 0.3)
    assert seen == [9]
    sweep.evaluate(0.3)
    sweep.evaluate(0.5)
    assert seen == [9, 40]


def test_what_is_known_does_not_wait_for_the_generator(split, victim):
    entered, go_on = threading.Event(), threading.Event()

    def slow(batch):
        if len(batch) == len(split.database):
            entered.set()
            assert go_on.wait(20)
        return torch.ones_like(batch)

    sweep = EpsilonSweep(victim, Patterns(slow, split.query, split.database))
    thread = threading.Thread(target=sweep.evaluate, args=(0.3,))
    thread.start()
    assert entered.wait(20)
    try:
        seen = []
        looking = threading.Thread(target=lambda: seen.append(sweep.look(0, 0.3)))
        looking.start()
        looking.join(10)
        assert len(seen) == 1
    finally:
        go_on.set()
        thread.join(20)


def test_another_norm_takes_the_clean_codes_over(sweep, generator, victim, split):
    class Counting:
        calls = 0

        def encode(self, images):
            self.calls += 1
            return victim.encode(images)

    counting = Counting()
    second = EpsilonSweep(counting, sweep.patterns, "2", EpsilonSweep(counting, sweep.patterns))
    assert counting.calls == 2 and torch.equal(second.clean_database, sweep.clean_database)
    assert torch.equal(second.codes(0.3).adversarial_query,
                       victim.encode(budget.protect(split.query.images, generator, 0.3, "2")))


def test_bad_input(sweep, generator, victim, split):
    with pytest.raises(IndexError, match="query 9 does not exist: this set has queries 0 to 8"):
        sweep.look(9, 0.1)
    with pytest.raises(ValueError, match=r"1\.5"):
        sweep.evaluate(1.5)
    with pytest.raises(ValueError, match="'3'"):
        EpsilonSweep(victim, sweep.patterns, "3")
    with pytest.raises(ValueError, match="1 channels"):
        Patterns(generator, images(3, 0, channels=3), images(4, 0, channels=3))
    with pytest.raises(ValueError, match="must have the images' shape"):
        Patterns(lambda batch: batch[:, :, 1:], split.query, split.database)

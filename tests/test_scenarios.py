"""The four scenarios: orientation, learned codes, and that nothing is protected or encoded twice."""

from dataclasses import replace

import pytest
import torch

from pplkit.data import ImageSet, RetrievalSplit
from pplkit.retrieval import mean_average_precision
from pplkit.scenarios import SCENARIOS, encode_scenarios, evaluate_scenarios, protect_split

BITS = 8


def make_split(queries=12, database=60, train=20, seed=0):
    """Noisy images of three classes, 4 x 4 grey."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randint(60, 196, (3, 1, 4, 4), generator=random)

    def images(count):
        labels = torch.arange(count) % 3
        noise = torch.randint(-60, 60, (count, 1, 4, 4), generator=random)
        return ImageSet((centres[labels] + noise).to(torch.uint8), labels)

    everything, index = images(database), torch.randperm(database, generator=random)[:train]
    return RetrievalSplit(
        "toy", ("a", "b", "c"), everything.subset(index), images(queries), everything, index, {}
    )


class Projection:
    """A victim that hashes by the signs of a random projection and remembers what it encoded."""

    def __init__(self, database_codes=None):
        self.weight = torch.randn(16, BITS, generator=torch.Generator().manual_seed(1))
        self.encoded = []
        if database_codes is not None:
            self.database_codes = database_codes

    def encode(self, images):
        assert images.dtype == torch.uint8
        self.encoded.append(images)
        return torch.where((images.flatten(1).float() - 127.5) @ self.weight >= 0, 1, -1).to(torch.int8)


def blank(images):
    """A protector that erases everything."""
    return torch.full_like(images, 200)


def label_codes(labels):
    """Database codes that know the label: the first bits spell it."""
    codes = -torch.ones(len(labels), BITS, dtype=torch.int8)
    codes[torch.arange(len(labels)), labels] = 1
    return codes


@pytest.mark.parametrize("at", [None, 7])
def test_scenarios_are_query_then_database(at):
    split, victim = make_split(), Projection()
    result = evaluate_scenarios(victim, split, blank, at=at)
    assert tuple(result) == SCENARIOS == ("C->C", "C->A", "A->C", "A->A")
    query = {"C": split.query.images, "A": blank(split.query.images)}
    database = {"C": split.database.images, "A": blank(split.database.images)}
    for name, measured in result.items():
        codes = victim.encode(query[name[0]]), victim.encode(database[name[-1]])
        labels = split.query.labels, split.database.labels
        direct = mean_average_precision(codes[0], labels[0], codes[1], labels[1], at=at)
        assert torch.equal(measured.per_query, direct.per_query)


def test_swapped_scenarios_would_be_noticed():
    split = make_split()
    result = evaluate_scenarios(Projection(), split, blank)
    spread = {name: value.best - value.worst for name, value in result.items()}
    # a blank database is one group of ties, whatever the query; blank queries rank a clean database
    assert spread["C->A"] == spread["A->A"] and spread["C->A"] > 0.5 > spread["A->C"]
    assert len(result["C->A"].per_query.unique()) == 1  # the classes are equally frequent in the database
    assert len(result["A->C"].per_query.unique()) == 3  # one value per class of the query
    assert result["C->C"].expected > result["A->C"].expected


def test_every_image_is_protected_and_encoded_once():
    split, victim, protected = make_split(), Projection(), []

    def protect(images):
        protected.append(images)
        return 255 - images

    encode_scenarios(victim, split, protect)
    assert [len(images) for images in protected] == [12, 60]
    assert len(victim.encoded) == 4
    assert len({images.data_ptr() for images in victim.encoded}) == 4


def test_a_protected_split_serves_many_victims():
    split = make_split()
    adversarial = protect_split(split, lambda images: 255 - images)
    assert torch.equal(adversarial.query.images, 255 - split.query.images)
    assert torch.equal(adversarial.train.images, adversarial.database.images[split.train_index])
    assert torch.equal(adversarial.train.labels, split.train.labels)
    assert torch.equal(adversarial.query_index, split.query_index)
    assert adversarial.manifest["protected"] is True and "protected" not in split.manifest
    once = evaluate_scenarios(Projection(), split, adversarial)
    again = evaluate_scenarios(Projection(), split, lambda images: 255 - images)
    assert all(torch.equal(once[name].per_query, again[name].per_query) for name in SCENARIOS)


@pytest.mark.parametrize(("train_domain", "letter"), [("clean", "C"), ("adversarial", "A")])
def test_learned_codes_replace_the_database_of_the_train_domain(train_domain, letter):
    split = make_split()
    learned = label_codes(split.database.labels)
    victim = Projection(learned)
    network = encode_scenarios(victim, split, blank, train_domain=train_domain)
    assert len(victim.encoded) == 4  # learned codes are not used unasked
    victim.encoded.clear()
    codes = encode_scenarios(victim, split, blank, train_domain=train_domain, codes="learned")
    assert len(victim.encoded) == 3
    for name in SCENARIOS:
        query, database = codes.of(name)
        network_query, network_database = network.of(name)
        assert torch.equal(query, network_query)
        expected = learned if name.endswith(letter) else network_database
        assert torch.equal(database, expected)


def test_learned_codes_reach_the_measure():
    split = make_split()
    victim = Projection(label_codes(split.database.labels))
    learned = evaluate_scenarios(victim, split, blank, codes="learned")
    network = evaluate_scenarios(victim, split, blank)
    assert learned["C->C"].expected != network["C->C"].expected
    assert learned["A->C"].expected != network["A->C"].expected
    assert torch.equal(learned["C->A"].per_query, network["C->A"].per_query)
    assert torch.equal(learned["A->A"].per_query, network["A->A"].per_query)


@pytest.mark.parametrize(
    ("victim", "options", "message"),
    [
        (Projection(), {"train_domain": "C"}, "train_domain is 'C'; expected 'clean' or 'adversarial'"),
        (Projection(), {"codes": "V"}, "codes is 'V'; expected 'network' or 'learned'"),
        (Projection(), {"codes": "learned"}, "Projection has no database_codes; fit it with database_labels"),
        (
            Projection(label_codes(torch.zeros(20).long())),
            {"codes": "learned"},
            "learned 20 database codes for a database of 60; fit it with database_labels",
        ),
    ],
)
def test_bad_options_fail_before_any_work(victim, options, message):
    def protect(images):
        raise AssertionError("worked before the options were checked")

    with pytest.raises(ValueError, match=message):
        evaluate_scenarios(victim, make_split(), protect, **options)


@pytest.mark.parametrize(
    ("protect", "message"),
    [
        (lambda images: images / 255, r"returned torch.float32 \(12, 1, 4, 4\) for uint8 \(12, 1, 4, 4\)"),
        (lambda images: images[:, :, :3], r"returned torch.uint8 \(12, 1, 3, 4\)"),
    ],
)
def test_bad_protector(protect, message):
    with pytest.raises(ValueError, match=message):
        evaluate_scenarios(Projection(), make_split(), protect)


def test_twin_of_another_split():
    split = make_split()
    with pytest.raises(ValueError, match=r"protected query \(9, 1, 4, 4\) is not the twin"):
        evaluate_scenarios(Projection(), split, make_split(queries=9))
    other = replace(split, query=ImageSet(split.query.images, split.query.labels.flip(0)))
    with pytest.raises(ValueError, match="shape or labels differ"):
        evaluate_scenarios(Projection(), split, protect_split(other, blank))


def test_unknown_scenario():
    codes = encode_scenarios(Projection(), make_split(), blank)
    with pytest.raises(ValueError, match="scenario is 'A-C'; expected one of C->C, C->A, A->C, A->A"):
        codes.of("A-C")

"""pplkit.splits: image sets, the parts of a split, manifests, validation queries."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pplkit import splits
from pplkit.data import ImageSet, RetrievalSplit, check_manifest, load, save_manifest


def image_set(count: int, classes: int = 2, size: int = 4, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, size, size), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % classes)


def hand_split(**changes) -> RetrievalSplit:
    database, index = image_set(12), torch.tensor([0, 3, 5, 8, 10, 11])
    parts = {
        "name": "hand",
        "classes": ("even", "odd"),
        "train": database.subset(index),
        "query": image_set(4, seed=1),
        "database": database,
        "train_index": index,
        "manifest": {"dataset": "hand"},
    }
    return RetrievalSplit(**(parts | changes))


# ---- ImageSet and RetrievalSplit


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2).long(), "torch.uint8 tensor .* got torch.float32"),
        (np.zeros((2, 1, 4, 4), np.uint8), torch.zeros(2).long(), "got a ndarray"),
        (torch.zeros(2, 4, 4).byte(), torch.zeros(2).long(), r"\(N, C, H, W\).* got \(2, 4, 4\)"),
        (torch.zeros(0, 1, 4, 4).byte(), torch.zeros(0).long(), r"got \(0, 1, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2), "torch.int64 tensor, got torch.float32"),
        (torch.zeros(2, 1, 4, 4).byte(), [0, 0], "torch.int64 tensor, got a list"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(3).long(), r"shape \(2,\).* got \(3,\)"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2, 1).long(), r"got \(2, 1\)"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.tensor([0, -1]), ">= 0, got -1"),
    ],
)
def test_image_set_refuses(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels)


def test_image_set_subset_keeps_order_and_checks_the_index():
    images = image_set(5)
    chosen = images.subset(torch.tensor([4, 0]))
    assert len(chosen) == 2 and torch.equal(chosen.images[0], images.images[4])
    assert chosen.labels.tolist() == [0, 0]
    assert torch.equal(images.to("cpu").images, images.images)
    assert repr(images) == "ImageSet(5 images 1x4x4, 2 classes)"
    for index in (torch.tensor([], dtype=torch.int64), torch.tensor([0.0]), torch.tensor([[0]])):
        with pytest.raises(ValueError, match="index must be int64"):
            images.subset(index)
    for index in (torch.tensor([-1]), torch.tensor([5])):
        with pytest.raises(ValueError, match=r"in 0\.\.4, got"):
            images.subset(index)


def test_split_fills_in_source_positions():
    split = hand_split()
    assert split.database_index.tolist() == list(range(12))
    assert split.query_index.tolist() == [12, 13, 14, 15]
    assert repr(split) == "RetrievalSplit('hand': train 6, query 4, database 12; images 1x4x4, 2 classes)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_index": torch.tensor([0, 3, 5, 8, 10, 9])}, "train must equal database.subset"),
        ({"train_index": torch.tensor([0, 3, 5, 8, 10, 10])}, "train_index must hold"),
        ({"train_index": torch.tensor([0, 3, 5, 8, 10, -1])}, "distinct positions >= 0"),
        ({"train_index": torch.tensor([0, 3, 5, 8, 10, 12])}, r"in 0\.\.11, got 0\.\.12"),
        ({"train_index": torch.tensor([0, 3])}, r"train_index must be int64 of shape \(6,\)"),
        ({"train_index": torch.tensor([0.0] * 6)}, "train_index must be int64 .* got torch.float32"),
        ({"query": image_set(4, size=5)}, r"have shape \(1, 5, 5\), database images \(1, 4, 4\)"),
        ({"query": image_set(4, classes=4)}, "query has label 3, but only 2 classes"),
        ({"query_index": torch.tensor([20, 21, 7, 22])}, "must be disjoint, .* first is number 7"),
        ({"query_index": torch.tensor([20, 21])}, r"query_index must be int64 of shape \(4,\)"),
    ],
)
def test_split_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        hand_split(**changes)


# ---- manifests


def test_manifest_round_trip_and_differences(tmp_path):
    split = load("fashion-mnist-mini")
    save_manifest(split, tmp_path / "below" / "manifest.json")
    check_manifest(split, tmp_path / "below" / "manifest.json")
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["manifest.json"]
    with pytest.raises(ValueError) as caught:
        check_manifest(load("fashion-mnist-mini", seed=1), tmp_path / "below" / "manifest.json")
    text = str(caught.value)
    assert "seed: file has 0, split has 1" in text and "sha256.train: file has '86318a6f" in text
    assert "counts" not in text and "sha256.query" not in text
    with pytest.raises(ValueError, match="counts.train: file has 4000, split has 3000"):
        check_manifest(split.validation(), tmp_path / "below" / "manifest.json")


def test_manifest_file_errors(tmp_path):
    split = hand_split()
    with pytest.raises(FileNotFoundError, match="absent.json; write one with save_manifest"):
        check_manifest(split, tmp_path / "absent.json")
    cases = (("{", "is not a manifest"), ("[]", r"content: file has \[\]"), ("{}", "dataset: file has"))
    for content, message in cases:
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            check_manifest(split, tmp_path / "manifest.json")


def test_manifest_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "manifest.json"
    save_manifest(hand_split(), path)
    with pytest.raises((TypeError, ValueError)):
        save_manifest(hand_split(manifest={"dataset": object()}), path)
    check_manifest(hand_split(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


# ---- validation


def test_validation_takes_queries_out_of_train_and_database():
    split = load("fashion-mnist-mini")
    tuning = split.validation(queries=500, seed=5)
    assert tuning.name == "fashion-mnist-mini/validation"
    assert (len(tuning.train), len(tuning.query), len(tuning.database)) == (3500, 500, 9500)
    assert tuning.query.labels.bincount().tolist() == [50] * 10
    assert set(tuning.query_index.tolist()) <= set(split.database_index[split.train_index].tolist())
    assert not torch.isin(tuning.query_index, split.query_index).any()
    merged = torch.cat([tuning.query_index, tuning.database_index]).sort().values
    assert torch.equal(merged, split.database_index)
    position = {source: row for row, source in enumerate(split.database_index.tolist())}
    rows = torch.tensor([position[source] for source in tuning.query_index.tolist()])
    assert torch.equal(split.database.images[rows], tuning.query.images)
    assert tuning.manifest["source"] == split.manifest and tuning.manifest["seed"] == 5
    assert split.validation(queries=500, seed=5).manifest == tuning.manifest
    assert split.validation(queries=500, seed=6).manifest != tuning.manifest


def test_other_images_to_train_on_are_none_of_the_train_part():
    split = load("fashion-mnist-mini")
    few = split.train_index[::5]
    small = dataclasses.replace(split, train=split.database.subset(few), train_index=few)
    other = small.with_other_train(3)
    assert len(other.train) == len(small.train)
    assert not torch.isin(other.train_index, small.train_index).any() and len(other.train_index.unique()) == len(other.train)
    assert torch.equal(other.train.images, small.database.images[other.train_index])
    assert other.query is small.query and other.database is small.database
    parts = {part: other.manifest["sha256"][part] == small.manifest["sha256"][part] for part in ("train", "query", "database")}
    assert parts == {"train": False, "query": True, "database": True}
    assert other.manifest == small.with_other_train(3).manifest != small.with_other_train(4).manifest
    most = torch.arange(len(split.database) * 2 // 3)
    with pytest.raises(ValueError, match="so there are only .* others: take a smaller train part"):
        dataclasses.replace(split, train=split.database.subset(most), train_index=most).with_other_train()


def test_validation_can_leave_the_train_part_as_it_is():
    split = load("fashion-mnist-mini")
    tuning = split.validation(queries=500, seed=5, keep_train=True)
    assert (len(tuning.train), len(tuning.query), len(tuning.database)) == (4000, 500, 9500)
    assert torch.equal(tuning.train.images, split.train.images) and torch.equal(tuning.train.labels, split.train.labels)
    assert tuning.manifest["sha256"]["train"] == split.manifest["sha256"]["train"]
    assert tuning.query.labels.bincount().tolist() == [50] * 10
    assert not torch.isin(tuning.query_index, split.query_index).any()
    assert not torch.isin(tuning.query_index, split.database_index[split.train_index]).any()
    assert torch.equal(torch.cat([tuning.query_index, tuning.database_index]).sort().values, split.database_index)


def test_validation_that_keeps_train_needs_other_images():
    database = image_set(6, 2, size=1)
    even = (database.labels == 0).nonzero()[:, 0]
    for index, message in ((torch.arange(6), "no images outside the train part to draw queries from: take a smaller"),
                           (torch.arange(4), "take 1 of class 'even', but the rest of the database has 1 and must keep one"),
                           (even, "take 1 of class 'even', but the rest of the database has 0 and must keep one")):
        split = RetrievalSplit("any", ("even", "odd"), database.subset(index), image_set(2, size=1), database, index, {})
        with pytest.raises(ValueError, match=message):
            split.validation(2, keep_train=True)


@pytest.mark.parametrize("queries", [0, -1, 2.5, True, "10"])
def test_validation_bad_count(queries):
    with pytest.raises(ValueError, match="queries must be a whole number of at least 1, got"):
        hand_split().validation(queries=queries)


def test_validation_needs_images_of_each_class():
    with pytest.raises(ValueError, match="6 validation queries take 3 of class 'even', but train has 3"):
        hand_split().validation(queries=6)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(6, 60),
    classes=st.integers(1, 4),
    share=st.floats(0.3, 1),
    queries=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_validation_of_any_split_is_balanced_or_refused(count, classes, share, queries, seed):
    database = image_set(count, classes, size=1)
    index = splits.draw(count, max(1, int(share * count)), seed)
    split = RetrievalSplit(
        "any", tuple("abcd"), database.subset(index), image_set(2, size=1), database, index, {}
    )
    have = split.train.labels.bincount()
    try:
        tuning = split.validation(queries, seed)
    except ValueError as error:
        assert "ask for fewer queries" in str(error)
        assert int(have[have > 0].min()) <= -(-queries // int((have > 0).sum()))
        return
    taken = tuning.query.labels.bincount(minlength=4)[: len(have)][have > 0]
    assert len(tuning.query) == queries and int(taken.max() - taken.min()) <= 1
    assert len(tuning.train) == len(split.train) - queries
    assert len(tuning.database) == count - queries

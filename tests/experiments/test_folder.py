"""The four scenarios on a folder: the twin is the published one, image by image."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit import data, photos
from pplkit.experiments import folder
from pplkit.experiments.folder import evaluate_folder, published_twin, table
from pplkit.folders import protect_folder
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import CollapseWarning


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Clean and published class folders of 40 x 40 pictures."""
    place = tmp_path_factory.mktemp("folders")
    random = np.random.default_rng(0)
    for label in range(2):
        (place / "in" / f"class{label}").mkdir(parents=True)
        for i in range(12):
            array = random.integers(60 * label, 100 + 60 * label, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(array).save(place / "in" / f"class{label}" / f"{i}.{'png' if i % 3 else 'bmp'}")
    protect_folder(place / "in", place / "out", PerturbationGenerator(3, (4, 4)), 0.2, progress=False)
    return place / "in", place / "out"


def test_the_twin_has_the_same_images_in_the_same_places(folders):
    clean, out = folders
    split = data.load(f"folder:{clean}", size=40, seed=3)
    twin = published_twin(split, clean, out, size=40)
    assert twin.manifest["protected"] is True
    assert torch.equal(twin.query_index, split.query_index) and torch.equal(twin.train_index, split.train_index)
    change = (twin.database.images.int() - split.database.images.int()).abs().flatten(1).amax(1)
    assert int(change.max()) <= 51 and torch.equal(twin.database.labels, split.database.labels)


def test_the_twin_comes_in_the_same_order_whatever_the_suffixes(tmp_path):
    for label, value in (("one", 0), ("two", 128)):
        (tmp_path / "in" / label).mkdir(parents=True)
        for i, name in enumerate(("cat.jpg", "cat.large.jpg", "cat-1.bmp", "dog.png")):  # "." comes before "l" and after "-"
            Image.new("L", (8, 8), value + 30 * i).save(tmp_path / "in" / label / name)
    protect_folder(tmp_path / "in", tmp_path / "out", PerturbationGenerator(1, (4, 4)), 0.0, progress=False)
    split = data.load(f"folder:{tmp_path / 'in'}", size=8, channels=1)
    twin = published_twin(split, tmp_path / "in", tmp_path / "out", size=8, channels=1)
    assert torch.equal(twin.database.images, split.database.images) and torch.equal(twin.query.images, split.query.images)


def test_published_pictures_are_shrunk_after_their_protection(folders):
    clean, out = folders
    rows = evaluate_folder(clean, None, None, protected=out, methods=("dsdh",), fast=True, progress=False, size=20)["rows"]
    assert set(rows) == {"dsdh clean", "dsdh adversarial"} and "adversarial  A->A" in table(rows)


def test_protection_at_the_searchers_size(folders):
    generator = PerturbationGenerator(1, (4, 4))  # of another number of channels
    result = evaluate_folder(folders[0], generator, 0.1, methods=("adsh",), fast=True, progress=False, size=16)
    assert result["victims"]["adsh"]["backbone"] == "two_conv" and result["codes"] == "network"
    assert photos.channel_pattern(generator, torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="a generator and an epsilon, or"):
        evaluate_folder(folders[0], None, 0.1)


def test_the_learning_rate_is_the_victims(folders):
    clean, out = folders
    options = {"protected": out, "fast": True, "progress": False, "size": 16}
    given = evaluate_folder(clean, None, None, learning_rate=2e-4, batch_size=4, **options)["victims"]
    assert [(given[method]["learning_rate"], given[method]["batch_size"]) for method in ("adsh", "dsdh")] == [(2e-4, 4)] * 2
    own = evaluate_folder(clean, None, None, methods=("dsdh",), **options)["victims"]["dsdh"]
    assert own["learning_rate"] == 1e-3 and own == given["dsdh"] | {"learning_rate": 1e-3, "batch_size": 128}
    with pytest.raises(ValueError, match="learning_rate must be positive and finite, got 0"):
        evaluate_folder(clean, None, None, learning_rate=0, **options)


def test_each_victim_that_collapses_is_named(folders, monkeypatch):
    fit = folder.fit_victim

    def collapses(*arguments):
        warnings.warn("all images get the same code", CollapseWarning, stacklevel=1)
        return fit(*arguments)

    monkeypatch.setattr(folder, "fit_victim", collapses)
    with pytest.warns(CollapseWarning) as caught:
        evaluate_folder(folders[0], None, None, protected=folders[1], methods=("dsdh",), fast=True, progress=False, size=16)
    said = [str(warning.message) for warning in caught if "all images get the same code" in str(warning.message)]
    assert [line.split(":")[0] for line in said] == ["dsdh trained on clean images", "dsdh trained on adversarial images"]

"""The four scenarios on a folder: the twin is the published one, image by image."""

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit import data, photos
from pplkit.experiments.folder import evaluate_folder, published_twin, table
from pplkit.folders import protect_folder
from pplkit.generator import PerturbationGenerator


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

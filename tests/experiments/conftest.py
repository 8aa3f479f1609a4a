"""What the experiments' tests share: a tiny folder of images, three classes that a network can tell apart."""

import numpy as np
import pytest
from PIL import Image

from pplkit.data import load


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Folder `pictures` with 16 grey images of 28 x 28 in each of three classes: a bright band, high, in the middle or low."""
    folder = tmp_path_factory.mktemp("images") / "pictures"
    random = np.random.default_rng(0)
    for label in range(3):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(16):
            image = random.integers(0, 60, (28, 28), dtype=np.uint8)
            image[8 * label:8 * label + 8] += 150
            Image.fromarray(image).save(folder / f"class{label}" / f"{i}.png")
    return folder


@pytest.fixture
def load_grey(monkeypatch):
    """Let the given modules read folders as grey images of 28 x 28."""
    def patch(*modules):
        for module in modules:
            monkeypatch.setattr(module, "load", lambda name, root, seed: load(name, root, seed=seed, size=28, channels=1))
    return patch

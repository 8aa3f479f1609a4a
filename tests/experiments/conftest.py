"""What the experiments' tests share: a tiny folder of images, three classes that a network can tell apart."""

import pytest
import striped_pictures

from pplkit.data import load


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Folder `pictures` with 16 grey images of 28 x 28 in each of three classes, see `striped_pictures`."""
    return striped_pictures.write(tmp_path_factory.mktemp("images") / "pictures", 3, 16, (28, 28))


@pytest.fixture
def load_grey(monkeypatch):
    """Let the given modules read folders as grey images of 28 x 28."""
    def patch(*modules):
        for module in modules:
            monkeypatch.setattr(module, "load", lambda name, root, seed: load(name, root, seed=seed, size=28, channels=1))
    return patch

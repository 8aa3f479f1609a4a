"""What the tests of folders share: pictures of several kinds, a generator, a call that protects them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit.folders import protect_folder
from pplkit.generator import PerturbationGenerator


@pytest.fixture(scope="module")
def generator() -> PerturbationGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = PerturbationGenerator(1, (4, 4, 4, 4)).eval()
        with torch.no_grad():
            made.output.weight.mul_(100)  # a pattern that survives rounding
        return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    random = np.random.default_rng(0)
    for name, shape in {"a.png": (20, 30), "b.jpg": (9, 12, 3), "sub/c.bmp": (8, 8, 3), "sub/deep/d.png": (16, 5, 4)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def run(source, tmp_path, generator):
    def call(**changes):
        arguments = {"source": source, "target": tmp_path / "out", "generator": generator, "epsilon": 0.1, "progress": False}
        return protect_folder(**(arguments | changes))

    return call

"""What the tests of the commands share: pictures in class folders, a generator, the words of a short training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pplkit.generator import PerturbationGenerator


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Class folders: grey stripes at a height that tells the class."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    random = np.random.default_rng(0)
    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(20):
            array = random.integers(0, 60, (24, 20), dtype=np.uint8)
            array[8 * label:8 * label + 8] += 150
            Image.fromarray(array).save(folder / f"class{label}" / f"{i}.{'png' if i % 2 else 'bmp'}")
    return folder


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "generator.safetensors"
    PerturbationGenerator(1, (4, 4, 4, 4)).save(path, config={"epsilon": 0.2, "norm": "inf"})
    return path


@pytest.fixture(scope="module")
def train_words(photos):
    """Words of a short training on `photos`: of (where the generator goes, more words)."""
    def words(output: Path, *more: str) -> list[str]:
        return ["train", f"folder:{photos}", str(output), "--size", "16", "--channels", "1", "--batch-size", "8",
                "--warmup-steps", "2", "--steps", "2", "--device", "cpu", "--quiet", *more]

    return words

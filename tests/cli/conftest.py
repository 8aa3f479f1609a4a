"""What the tests of the commands share: pictures in class folders, a generator, the words of a short training."""

from pathlib import Path

import pytest
import striped_pictures

from pplkit.generator import PerturbationGenerator


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Class folders `photos` with 20 grey pictures of 24 x 20 in each of two classes, see `striped_pictures`."""
    return striped_pictures.write(tmp_path_factory.mktemp("data") / "photos", 2, 20, (24, 20), ("bmp", "png"))


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

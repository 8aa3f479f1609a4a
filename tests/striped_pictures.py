"""Class folders of pictures that a network can tell apart."""

from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path, classes: int, count: int, size: tuple[int, int], suffixes: tuple[str, ...] = ("png",),
          contrast: int = 150) -> Path:
    """Write `count` grey pictures of (height, width) per class below `folder`, which is made: dim noise (0 to 59) and
    a band that is brighter by `contrast`, at a height that tells the class. Their suffixes take turns.
    """
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(count):
            image = random.integers(0, 60, size, dtype=np.uint8)
            image[8 * label:8 * label + 8] += contrast
            Image.fromarray(image).save(folder / f"class{label}" / f"{i}.{suffixes[i % len(suffixes)]}")
    return folder

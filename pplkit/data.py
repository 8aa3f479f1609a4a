"""Datasets as retrieval splits: train, query and database, with a manifest that pins them.

``load(name)`` is the only entry. Images stay uint8 (N, C, H, W) until a network uses them. Splits follow the
paper (section "Experiments"): queries and database are disjoint, the training images are a part of the database.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                         "Ankle boot")


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Args:
        images: (N, C, H, W) uint8, N > 0.
        labels: (N,) int64, class numbers >= 0.

    Raises:
        ValueError: wrong dtype or rank, no image, negative label, or labels of another length.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.images, Tensor) or self.images.dtype != torch.uint8:
            found = getattr(self.images, "dtype", type(self.images).__name__)
            raise ValueError(f"images must be a torch.uint8 tensor (values 0..255), got {found}")
        if self.images.ndim != 4 or min(self.images.shape) == 0:
            raise ValueError(f"images must have shape (N, C, H, W), nothing empty, got {tuple(self.images.shape)}")
        if not isinstance(self.labels, Tensor) or self.labels.dtype != torch.int64:
            found = getattr(self.labels, "dtype", type(self.labels).__name__)
            raise ValueError(f"labels must be a torch.int64 tensor, got {found}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must have shape ({len(self.images)},), one per image, got {tuple(self.labels.shape)}"
            )
        if int(self.labels.min()) < 0:
            raise ValueError(f"labels must be >= 0, got {int(self.labels.min())}")

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on ``device``."""
        return ImageSet(self.images.to(device), self.labels.to(device))

    def subset(self, index: Tensor) -> ImageSet:
        """The images at ``index`` (int64, (M,), 0 <= index < N), in that order."""
        index = index.to(self.images.device)
        return ImageSet(self.images[index], self.labels[index])  # (M, C, H, W), (M,)


@dataclass(frozen=True)
class RetrievalSplit:
    """One dataset, split for retrieval; checked on construction.

    Args:
        name: dataset name as given to ``load``.
        classes: class names; label k is ``classes[k]``.
        train: labelled images the networks learn from; ``database.subset(train_index)``.
        query: images searched for.
        database: images searched in.
        train_index: (len(train),) int64, positions in the database.
        manifest: JSON-able description with the sha256 of the indices.
        query_index: (len(query),) int64 positions in the source; default: behind the database.
        database_index: (len(database),) int64 positions in the source; default: 0, 1, 2, ...

    Raises:
        ValueError: train is not that part of the database, or a query image is in the database.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    query: ImageSet
    database: ImageSet
    train_index: Tensor
    manifest: dict
    query_index: Tensor | None = None
    database_index: Tensor | None = None

    def __post_init__(self) -> None:
        if self.database_index is None:
            object.__setattr__(self, "database_index", torch.arange(len(self.database)))
        if self.query_index is None:
            start = int(self.database_index.max()) + 1
            object.__setattr__(self, "query_index", torch.arange(start, start + len(self.query)))
        for part, images, index in (
            ("train", self.train, self.train_index),
            ("query", self.query, self.query_index),
            ("database", self.database, self.database_index),
        ):
            if index.dtype != torch.int64 or index.shape != (len(images),):
                raise ValueError(
                    f"{part}_index must be int64 of shape ({len(images)},), got {index.dtype} {tuple(index.shape)}"
                )
            if len(index.unique()) != len(index) or int(index.min()) < 0:
                raise ValueError(f"{part}_index must hold distinct positions >= 0")
            if images.images.shape[1:] != self.database.images.shape[1:]:
                raise ValueError(
                    f"{part} images have shape {tuple(images.images.shape[1:])}, "
                    f"database images {tuple(self.database.images.shape[1:])}; they must agree"
                )
            if int(images.labels.max()) >= len(self.classes):
                raise ValueError(
                    f"{part} has label {int(images.labels.max())}, but there are only {len(self.classes)} classes"
                )
        if int(self.train_index.max()) >= len(self.database):
            raise ValueError(f"train_index reaches {int(self.train_index.max())}, database has {len(self.database)}")
        chosen = self.database.subset(self.train_index)
        if not (torch.equal(chosen.images, self.train.images) and torch.equal(chosen.labels, self.train.labels)):
            raise ValueError("train must equal database.subset(train_index)")
        shared = torch.isin(self.query_index, self.database_index)
        if bool(shared.any()):
            raise ValueError(
                f"query and database must be disjoint; {int(shared.sum())} source images are in both, "
                f"the first is number {int(self.query_index[shared][0])}"
            )


def load(name: str, root: str | Path | None = None, *, download: bool = False, seed: int = 0, **options) -> RetrievalSplit:
    """Load a dataset as a retrieval split (see the issue's protocol)."""
    if name == "fashion-mnist":
        return _fashion_mnist(Path(root) if root else DEBIAN_FOLDER, seed)
    raise ValueError(f"unknown dataset {name!r}; accepted: 'fashion-mnist-mini', 'fashion-mnist', 'folder:PATH'")


def read_idx(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Read an idx file (gzip or plain) of unsigned bytes with exactly ``shape``."""
    expected = 4 + 4 * len(shape) + math.prod(shape)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read(expected + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: expected {expected} bytes when unpacked, found {error}") from error
    header = np.array([0x0800 + len(shape), *shape], dtype=">u4").tobytes()
    if len(content) != expected or content[: len(header)] != header:
        raise ValueError(f"{path} is damaged: expected {expected} bytes, found {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(shape)


def _draw(seed: int, count: int, size: int) -> Tensor:
    """``size`` distinct positions below ``count``, ascending; numpy promises never to change this stream."""
    return torch.from_numpy(np.sort(np.random.RandomState(seed).permutation(count)[:size]).astype(np.int64))


def _digest(index: Tensor) -> str:
    return hashlib.sha256(index.cpu().numpy().astype("<i8").tobytes()).hexdigest()


def _fashion_mnist(folder: Path, seed: int) -> RetrievalSplit:
    parts = []
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", (count, 28, 28))
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", (count,))
        parts.append(ImageSet(torch.tensor(images)[:, None], torch.tensor(labels).long()))  # (N, 1, 28, 28)
    database, query = parts
    train_index = _draw(seed, len(database), 10_000)
    query_index = torch.arange(len(database), len(database) + len(query))
    database_index = torch.arange(len(database))
    manifest = {
        "dataset": "fashion-mnist",
        "seed": seed,
        "counts": {"train": len(train_index), "query": len(query), "database": len(database)},
        "sha256": {
            "train": _digest(train_index), "query": _digest(query_index), "database": _digest(database_index),
        },
    }
    return RetrievalSplit("fashion-mnist", FASHION_MNIST_CLASSES, database.subset(train_index), query, database,
                          train_index, manifest, query_index, database_index)

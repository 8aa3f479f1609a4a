"""Retrieval splits: train, query and database; checked when made, drawn by seed, pinned by a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pplkit import storage
from pplkit.preconditions import check_whole


@dataclass(frozen=True, eq=False, repr=False)
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
            found = _describe(self.images)
            raise ValueError(f"images must be a torch.uint8 tensor (values 0..255), got {found}")
        if self.images.ndim != 4 or min(self.images.shape) == 0:
            raise ValueError(f"images must be (N, C, H, W), none of them 0, got {tuple(self.images.shape)}")
        if not isinstance(self.labels, Tensor) or self.labels.dtype != torch.int64:
            found = _describe(self.labels)
            raise ValueError(f"labels must be a torch.int64 tensor, got {found}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must have shape ({len(self.images)},), one per image, got {tuple(self.labels.shape)}"
            )
        if int(self.labels.min()) < 0:
            raise ValueError(f"labels must be >= 0, got {int(self.labels.min())}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(str(side) for side in self.images.shape[1:])
        return f"ImageSet({len(self)} images {shape}, {len(self.labels.unique())} classes)"

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on ``device``."""
        return ImageSet(self.images.to(device), self.labels.to(device))

    def subset(self, index: Tensor) -> ImageSet:
        """The images at ``index``, in that order.

        Args:
            index: (M,) int64, M > 0, 0 <= index < N.

        Raises:
            ValueError: empty, not int64 of rank 1, or out of range.
        """
        if index.dtype != torch.int64 or index.ndim != 1 or len(index) == 0:
            raise ValueError(f"index must be int64 (M,) with M > 0, got {index.dtype} {tuple(index.shape)}")
        if int(index.min()) < 0 or int(index.max()) >= len(self):
            found = f"{int(index.min())}..{int(index.max())}"
            raise ValueError(f"index must lie in 0..{len(self) - 1}, got {found}")
        index = index.to(self.images.device)
        return ImageSet(self.images[index], self.labels[index])  # (M, C, H, W), (M,)


@dataclass(frozen=True, eq=False, repr=False)
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
        for part in ("train", "query", "database"):
            self._check_part(part, getattr(self, part), getattr(self, f"{part}_index"))
        chosen = self.database.subset(self.train_index)
        same_labels = torch.equal(chosen.labels, self.train.labels)
        if not (same_labels and torch.equal(chosen.images, self.train.images)):
            raise ValueError("train must equal database.subset(train_index), but images or labels differ")
        shared = torch.isin(self.query_index, self.database_index)  # (Q,)
        if bool(shared.any()):
            raise ValueError(
                f"query and database must be disjoint, but share {int(shared.sum())} images of the source, "
                f"the first is number {int(self.query_index[shared][0])}"
            )

    def _check_part(self, part: str, images: ImageSet, index: Tensor) -> None:
        if index.dtype != torch.int64 or index.shape != (len(images),):
            found = f"{index.dtype} {tuple(index.shape)}"
            raise ValueError(f"{part}_index must be int64 of shape ({len(images)},), got {found}")
        if int(index.min()) < 0 or len(index.unique()) != len(index):
            raise ValueError(f"{part}_index must hold distinct positions >= 0")
        shape, expected = tuple(images.images.shape[1:]), tuple(self.database.images.shape[1:])
        if shape != expected:
            raise ValueError(f"{part} images have shape {shape}, database images {expected}; they must agree")
        if int(images.labels.max()) >= len(self.classes):
            raise ValueError(
                f"{part} has label {int(images.labels.max())}, but only {len(self.classes)} classes are named"
            )

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(getattr(self, part))}" for part in ("train", "query", "database"))
        shape = "x".join(str(side) for side in self.database.images.shape[1:])
        return f"RetrievalSplit({self.name!r}: {counts}; images {shape}, {len(self.classes)} classes)"

    def validation(self, queries: int = 1000, seed: int = 0, *, keep_train: bool = False) -> RetrievalSplit:
        """A split for tuning: new queries out of the train part, gone from train and database.

        This split's own queries are not used, so that choices made on the result leave them untouched.

        Args:
            queries: number of new queries, as many from each class as possible (they differ by at most 1).
            seed: of the draw, 0..2**32-1.
            keep_train: take them out of the rest of the database instead; the train part stays as it is.

        Raises:
            ValueError: a class of the part drawn from has too few images to give its queries and keep one.
        """
        trained = torch.zeros(len(self.database), dtype=torch.bool)
        trained[self.train_index] = True
        source = (~trained).nonzero()[:, 0] if keep_train else self.train_index  # (M,) positions in the database
        part = "the rest of the database" if keep_train else "train"
        if len(source) == 0:
            raise ValueError("no images outside the train part to draw queries from: take a smaller train part")
        labels = self.database.labels.cpu()[source]  # (M,)
        present = (self.database if keep_train else self.train).labels.cpu().unique()  # (K,) class numbers
        check_whole(queries, "queries")
        wanted = dict.fromkeys(range(len(self.classes)), 0)
        for rank, label in enumerate(present.tolist()):
            wanted[label] = queries // len(present) + (rank < queries % len(present))
            available = int((labels == label).sum())
            if wanted[label] >= available:
                raise ValueError(
                    f"{queries} validation queries take {wanted[label]} of class {self.classes[label]!r}, "
                    f"but {part} has {available} and must keep one; ask for fewer queries"
                )
        drawn = draw_per_class(labels, list(wanted.values()), seed)  # (Q,) positions in the part drawn from
        taken = source[drawn]  # (Q,) positions in the database
        keep = torch.ones(len(self.database), dtype=torch.bool)
        keep[taken] = False
        new_position = keep.cumsum(0) - 1  # (N,) database position -> position in the smaller database
        return make_split(
            f"{self.name}/validation",
            self.classes,
            seed,
            database=self.database.subset(keep.nonzero()[:, 0]),  # (N - Q,)
            query=self.database.subset(taken),
            train_index=new_position[self.train_index[keep[self.train_index]]],  # (T - Q,), or (T,)
            database_index=self.database_index[keep],
            query_index=self.database_index[taken],
            source=self.manifest,
        )

    def with_other_train(self, seed: int = 0) -> RetrievalSplit:
        """The same split but for the train part: as many other images of the database, none of this split's.

        Args:
            seed: of the draw, 0..2**32-1.

        Raises:
            ValueError: the rest of the database has fewer images.
        """
        others = torch.ones(len(self.database), dtype=torch.bool)
        others[self.train_index] = False
        rest = others.nonzero()[:, 0]  # (N - T,) positions in the database
        if len(rest) < len(self.train):
            raise ValueError(f"the train part has {len(self.train)} of {len(self.database)} database images, so there are only "
                             f"{len(rest)} others: take a smaller train part")
        train_index = rest[draw(len(rest), len(self.train), seed)]  # (T,)
        digests = {**self.manifest["sha256"], "train": _digest(self.database_index[train_index])}
        return replace(self, train=self.database.subset(train_index), train_index=train_index,
                       manifest={**self.manifest, "sha256": digests})


def save_manifest(split: RetrievalSplit, path: str | Path) -> None:
    """Write the split's manifest as JSON, atomically."""
    storage.save_json(path, split.manifest)


def check_manifest(split: RetrievalSplit, path: str | Path) -> None:
    """Compare the split with a manifest written by ``save_manifest``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a manifest, or it describes another split; every difference is quoted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no manifest {path}; write one with save_manifest(split, path)")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a manifest: {error}") from error
    stored, present = _flatten(stored), _flatten(json.loads(json.dumps(split.manifest)))
    absent = "nothing"
    differences = [
        f"{key or 'content'}: file has {stored.get(key, absent)!r}, split has {present.get(key, absent)!r}"
        for key in sorted(stored.keys() | present.keys())
        if stored.get(key, absent) != present.get(key, absent)
    ]
    if differences:
        lines = "\n  ".join(differences)
        raise ValueError(f"{path} describes another split than {split.name!r}:\n  {lines}")


def draw_per_class(labels: Tensor, counts: Sequence[int], seed: int) -> Tensor:
    """Draw ``counts[k]`` positions of each class k, without replacement.

    Args:
        labels: (N,) int64.
        counts: how many of each class; at most as many as there are.
        seed: 0..2**32-1.

    Returns:
        (sum(counts),) int64, ascending.

    Raises:
        ValueError: a class has fewer images than asked for.
    """
    random = random_state(seed)
    chosen = []
    for label, count in enumerate(counts):
        positions = np.flatnonzero(labels.numpy() == label)
        if count > len(positions):
            raise ValueError(f"cannot draw {count} images of class {label}: there are {len(positions)}")
        chosen.append(random.permutation(positions)[:count])
    return torch.from_numpy(np.sort(np.concatenate(chosen)).astype(np.int64))


def check_seed(seed: int) -> None:
    """Raise ValueError unless ``seed`` is an int in 0..2**32-1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an int in 0..2**32-1, got {seed!r}")


def draw(total: int, count: int, seed: int) -> Tensor:
    """``count`` of the positions 0..total-1, without replacement: (count,) int64, ascending."""
    if count > total:
        raise ValueError(f"cannot draw {count} of {total} images")
    return torch.from_numpy(np.sort(random_state(seed).permutation(total)[:count]).astype(np.int64))


def random_state(seed: int) -> np.random.RandomState:
    """The generator whose stream numpy promises never to change (NEP 19), so that manifests stay valid."""
    check_seed(seed)
    return np.random.RandomState(seed)


def _describe(value: object) -> str:
    return f"{value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _digest(index: Tensor) -> str:
    return hashlib.sha256(index.numpy().astype("<i8").tobytes()).hexdigest()


def _flatten(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def make_split(
    name: str,
    classes: tuple[str, ...],
    seed: int,
    *,
    database: ImageSet,
    query: ImageSet,
    train_index: Tensor,
    database_index: Tensor,
    query_index: Tensor,
    source: object,
) -> RetrievalSplit:
    """Put a split and its manifest together; ``source`` pins what the indices point into."""
    index = {"train": database_index[train_index], "query": query_index, "database": database_index}
    manifest = {
        "dataset": name,
        "seed": seed,
        "counts": {part: len(positions) for part, positions in index.items()},
        "sha256": {part: _digest(positions) for part, positions in index.items()},
        "source": source,
    }
    train = database.subset(train_index)
    return RetrievalSplit(
        name, classes, train, query, database, train_index, manifest, query_index, database_index
    )

"""Datasets as retrieval splits: train, query and database, with a manifest that pins them.

``load(name)`` is the entry. Images stay uint8 (N, C, H, W) until a network uses them. Splits follow the paper
(section "Experiments"): queries and database are disjoint, the training images are a part of the database.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch

from pplkit import sources
from pplkit.splits import (
    ImageSet,
    RetrievalSplit,
    check_manifest,
    check_seed,
    draw,
    draw_per_class,
    make_split,
    save_manifest,
)

__all__ = ["ImageSet", "RetrievalSplit", "check_manifest", "embedded", "load", "save_manifest"]

ACCEPTED = "'fashion-mnist-mini' (embedded), 'fashion-mnist', 'folder:PATH' (one folder of images per class)"
FOLDER_OPTIONS = ("size", "channels", "query_share", "train_share")
MINI_FILE = "fashion-mnist-mini.npz"
MINI_SHA256 = "c2c021e823db779144eaddd3a1976d52d1d08c36a6988261a56319171608dc8d"
MINI_TRAIN_PER_CLASS = 400
FASHION_MNIST_TRAIN = 10_000  # the paper's number of labelled database images


def load(
    name: str, root: str | Path | None = None, *, download: bool = False, seed: int = 0, **options: object
) -> RetrievalSplit:
    """Load a dataset as a retrieval split.

    ====================== ======== ======= ======= ==================================================
    name                   database query   train   from
    ====================== ======== ======= ======= ==================================================
    ``fashion-mnist-mini`` 10,000   1,000   4,000   embedded, works offline; every part class-balanced
    ``fashion-mnist``      60,000   10,000  10,000  ``root`` alone if given, else ``$PPLKIT_DATA``, Debian's
                                                    ``dataset-fashion-mnist``, the download cache
    ``folder:PATH``        the rest a share a share one folder of images per class
    ====================== ======== ======= ======= ==================================================

    Args:
        name: one of the above.
        root: folder to read ``fashion-mnist`` from, and to download it into; folder that a relative PATH
            starts from. The embedded sample needs none.
        download: fetch ``fashion-mnist`` if it is not on this machine.
        seed: 0..2**32-1; draws the train part (and the queries of ``folder:PATH``).
        options: for ``folder:PATH`` only. ``size`` in pixels, int or (H, W), default 32; ``channels`` 1 or 3,
            default 3; ``query_share`` of each class, 0 < share < 1, default 0.1; ``train_share`` of each
            class's database images, 0 < share <= 1, default 0.5. Each share takes at least one image.

    Raises:
        ValueError: unknown name or option, bad value, damaged file.
        FileNotFoundError: the data is nowhere to be found; says where it was looked for and how to get it.
    """
    kind = "folder" if isinstance(name, str) and name.startswith("folder:") else name
    if kind not in ("fashion-mnist-mini", "fashion-mnist", "folder") or name == "folder":
        raise ValueError(f"unknown dataset {name!r}; accepted: {ACCEPTED}")
    accepted = FOLDER_OPTIONS if kind == "folder" else ()
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"unknown option {option!r} for dataset {name!r}; accepted: {', '.join(accepted) or 'none'}"
            )
    if root == "":
        raise ValueError("root must be a folder or None, got ''")
    check_seed(seed)
    if kind == "fashion-mnist-mini":
        return _load_mini(seed)
    if kind == "fashion-mnist":
        return _load_fashion_mnist(root, download, seed)
    return _load_folder(name.removeprefix("folder:"), root, seed, **options)


def embedded(*parts: str) -> Path:
    """A file or folder that comes with the package: in ``data/`` of a source tree, else in ``pplkit/_data``.

    Args:
        parts: names below that folder, as in ``embedded("checkpoints", "generator.safetensors")``.

    Raises:
        ValueError: a part that leads out of the folder.
        FileNotFoundError: it is not there.
    """
    package = Path(str(files("pplkit")))
    tree = package.parent / "data"
    folder = tree if (package.parent / "pyproject.toml").is_file() and tree.is_dir() else package / "_data"
    path = folder.joinpath(*parts)
    if Path(*parts).is_absolute() or ".." in Path(*parts).parts:
        raise ValueError(f"embedded data is named by plain path parts, got {parts!r}")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; this copy of pplkit is incomplete, install it again")
    return path


def _load_mini(seed: int) -> RetrievalSplit:
    arrays = sources.read_mini(embedded(MINI_FILE), MINI_SHA256)
    parts, index = {}, {}
    for part in ("database", "query"):
        images = torch.tensor(arrays[f"{part}_images"])[:, None]  # (N, 1, 28, 28)
        parts[part] = ImageSet(images, torch.tensor(arrays[f"{part}_labels"]).long())
        index[part] = torch.tensor(arrays[f"{part}_index"]).long()  # (N,)
    classes = sources.FASHION_MNIST_CLASSES
    return make_split(
        "fashion-mnist-mini",
        classes,
        seed,
        **parts,
        train_index=draw_per_class(parts["database"].labels, [MINI_TRAIN_PER_CLASS] * len(classes), seed),
        database_index=index["database"],
        query_index=index["query"],
        source={MINI_FILE: MINI_SHA256},
    )


def _load_fashion_mnist(root: str | Path | None, download: bool, seed: int) -> RetrievalSplit:
    parts = sources.read_fashion_mnist(root, download)
    database, query = ImageSet(*parts["train"]), ImageSet(*parts["t10k"])
    return make_split(
        "fashion-mnist",
        sources.FASHION_MNIST_CLASSES,
        seed,
        database=database,
        query=query,
        train_index=draw(len(database), FASHION_MNIST_TRAIN, seed),
        database_index=torch.arange(len(database)),
        query_index=len(database) + torch.arange(len(query)),  # the test part follows the train part
        source={name: sha256 for name, (_, sha256) in sources.FASHION_MNIST_FILES.items()},
    )


def _load_folder(
    path: str,
    root: str | Path | None,
    seed: int,
    *,
    size: int | tuple[int, int] = 32,
    channels: int = 3,
    query_share: float = 0.1,
    train_share: float = 0.5,
) -> RetrievalSplit:
    if not path:
        raise ValueError("'folder:' needs a path: 'folder:PATH', with one folder of images per class in PATH")
    sides = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(sides, (tuple, list))
        or len(sides) != 2
        or not all(type(side) is int and 1 <= side <= 4096 for side in sides)
    ):
        raise ValueError(f"size must be pixels, an int or (H, W), each in 1..4096, got {size!r}")
    if type(channels) is not int or channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels!r}")
    for option, share, highest in (("query_share", query_share, "<"), ("train_share", train_share, "<=")):
        number = isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1
        if not number or (highest == "<" and share == 1):
            raise ValueError(f"{option} must satisfy 0 < {option} {highest} 1, got {share!r}")
    folder = Path(root or "", path).expanduser().resolve()
    classes, images, labels, digest = sources.read_folder(folder, tuple(sides), channels)
    sizes = labels.bincount().tolist()
    asked = [min(max(round(query_share * count), 1), count - 1) for count in sizes]
    query_index = draw_per_class(labels, asked, seed)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[query_index] = False
    database_index = rest.nonzero()[:, 0]  # (N - Q,)
    everything = ImageSet(images, labels)
    database = everything.subset(database_index)
    learned = [max(round(train_share * (count - out)), 1) for count, out in zip(sizes, asked, strict=True)]
    return make_split(
        f"folder:{folder.name}",
        classes,
        seed,
        database=database,
        query=everything.subset(query_index),
        train_index=draw_per_class(database.labels, learned, seed),
        database_index=database_index,
        query_index=query_index,
        source={
            "files": digest, "size": list(sides), "channels": channels,
            "query_share": query_share, "train_share": train_share,
        },
    )  # fmt: skip

"""Datasets as retrieval splits: train, query and database, with a manifest that pins them.

``load(name)`` is the entry. Images stay uint8 (N, C, H, W) until a network uses them. Splits follow the paper
(section "Experiments"): queries and database are disjoint, the training images are a part of the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from pplkit import colour_sources, decoding, sources
from pplkit.preconditions import is_whole
from pplkit.splits import (
    ImageSet,
    RetrievalSplit,
    check_manifest,
    check_seed,
    draw,
    draw_per_class,
    make_split,
    random_state,
    save_manifest,
)

__all__ = ["ImageSet", "RetrievalSplit", "check_manifest", "embedded", "load", "save_manifest"]

ACCEPTED = (
    "'fashion-mnist-mini' (embedded), 'fashion-mnist', 'cifar10', 'imagenet13', "
    "'folder:PATH' (one folder of images per class)"
)
FOLDER_OPTIONS = ("size", "channels", "query_share", "train_share", "workers", "cache")
OPTIONS = {
    "fashion-mnist-mini": (),
    "fashion-mnist": (),
    "cifar10": ("query", "database", "train"),
    "imagenet13": ("size", "query_per_class", "database_per_class", "train", "classes", "workers", "cache"),
    "folder": FOLDER_OPTIONS,
}
MINI_FILE = "fashion-mnist-mini.npz"
MINI_SHA256 = "c2c021e823db779144eaddd3a1976d52d1d08c36a6988261a56319171608dc8d"
MINI_TRAIN_PER_CLASS = 400
PAPER_TRAIN = 10_000  # the paper's number of labelled database images, in each of its data sets
PAPER_IMAGENET13_DATABASE = 16_900  # the database that the paper draws them from
QUERY_SEED = 0  # the queries of a set are the same for every seed, so that no choice made with one seed has seen another's


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
    ``cifar10``            59,000   1,000   10,000  ``root`` alone if given, else ``$PPLKIT_DATA``, the download
                                                    cache: torchvision's files, or mosaics
    ``imagenet13``         train    val     10,000  ``root`` or ``$PPLKIT_DATA``: class folders or a tar of them
    ``folder:PATH``        the rest a share a share one folder of images per class
    ====================== ======== ======= ======= ==================================================

    Args:
        name: one of the above.
        root: folder to read the set from, and to download it into; folder that a relative PATH starts from. The
            embedded sample needs none.
        download: fetch ``fashion-mnist`` or ``cifar10`` if it is not on this machine.
        seed: 0..2**32-1; draws the train part (and the queries of ``folder:PATH``).
        options: ``folder:PATH``: ``size`` in pixels, int or (H, W), default 32; ``channels`` 1 or 3,
            default 3; ``query_share`` of each class, 0 < share < 1, default 0.1; ``train_share`` of each
            class's database images, 0 < share <= 1, default 0.5. Each share takes at least one image.
            ``cifar10``: ``query`` (1000), ``database`` (None: all others) and ``train`` (10000) count images, for
            smaller runs. ``imagenet13``: ``size`` 64; ``database_per_class`` and ``query_per_class``, None for
            ImageNet's own train and val part (the paper's counts are 1300 and 100, drawn from both; ILSVRC 2012 has
            at most 1300 + 50 of a class, so there 1250 and 100 are the nearest); ``train``, None for the paper's share
            of the database, 10,000 of 16,900; ``classes``, a list of WordNet numbers.
            Sets of image files take ``workers`` (processes that decode, 0) and ``cache`` (None; a folder for the
            decoded pixels: the images are then mapped from disk, and query and database may be larger than memory).

    Raises:
        ValueError: unknown name or option, bad value, damaged file.
        FileNotFoundError: the data is nowhere to be found; says where it was looked for and how to get it.
    """
    kind = "folder" if isinstance(name, str) and name.startswith("folder:") else name
    if kind not in OPTIONS or name == "folder":
        raise ValueError(f"unknown dataset {name!r}; accepted: {ACCEPTED}")
    accepted = OPTIONS[kind]
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
    if kind == "cifar10":
        return _load_cifar10(root, download, seed, **options)
    if kind == "imagenet13":
        return _load_imagenet13(root, seed, **options)
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
        train_index=draw(len(database), PAPER_TRAIN, seed),
        database_index=torch.arange(len(database)),
        query_index=len(database) + torch.arange(len(query)),  # the test part follows the train part
        source={name: sha256 for name, (_, sha256) in sources.FASHION_MNIST_FILES.items()},
    )


def _load_cifar10(
    root: str | Path | None,
    download: bool,
    seed: int,
    *,
    query: int = 1000,
    database: int | None = None,
    train: int = PAPER_TRAIN,
) -> RetrievalSplit:
    counts = {"query": query, "database": database, "train": train}
    _check_counts({name: count for name, count in counts.items() if count is not None or name != "database"})
    parts = colour_sources.read_cifar10(root, download)
    images, labels = (torch.cat(pair) for pair in zip(*parts.values(), strict=True))  # (60000, 3, 32, 32), (60000,)
    query_index = draw(len(labels), query, QUERY_SEED)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[query_index] = False
    database_index = rest.nonzero()[:, 0]  # (60000 - Q,)
    if database is not None:
        database_index = database_index[draw(len(database_index), database, QUERY_SEED)]
    everything = ImageSet(images, labels)
    return make_split(
        "cifar10",
        colour_sources.CIFAR10_CLASSES,
        seed,
        database=everything.subset(database_index),
        query=everything.subset(query_index),
        train_index=draw(len(database_index), train, seed),
        database_index=database_index,
        query_index=query_index,
        source={f"cifar10 {part}": sha256 for part, sha256 in colour_sources.CIFAR10_SHA256.items()},
    )


def _load_imagenet13(
    root: str | Path | None,
    seed: int,
    *,
    size: int = 64,
    database_per_class: int | None = None,
    query_per_class: int | None = None,
    train: int | None = None,
    classes: Sequence[str] = tuple(colour_sources.IMAGENET13_CLASSES),
    workers: int = 0,
    cache: str | Path | None = None,
) -> RetrievalSplit:
    sides = _check_form(size, 3)
    if isinstance(classes, str) or len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"classes must be at least 2 different WordNet numbers, got {classes!r}")
    if (database_per_class is None) != (query_per_class is None):
        raise ValueError("database_per_class and query_per_class go together: give both or neither")
    asked = {"database_per_class": database_per_class, "query_per_class": query_per_class, "train": train}
    _check_counts({name: count for name, count in asked.items() if count is not None})
    parts = colour_sources.list_imagenet13(root, tuple(classes))
    listed = [*parts["train"], *parts["val"]]
    labels = torch.tensor([label for _, label in listed])  # (N,), train before val
    if query_per_class is None:
        if not parts["val"]:
            raise ValueError("there is no val part to take the queries from: give database_per_class and query_per_class, "
                             "in the paper 1300 and 100")  # fmt: skip
        database_index = torch.arange(len(parts["train"]))
        query_index = torch.arange(len(parts["train"]), len(listed))
    else:
        drawn = []  # per class: the queries, then the database
        for label, wnid in enumerate(classes):
            own = (labels == label).nonzero()[:, 0]
            if len(own) < database_per_class + query_per_class:
                raise ValueError(f"class {wnid} has {len(own)} images, but database_per_class + query_per_class ask for "
                                 f"{database_per_class} + {query_per_class}: ask for {len(own)} together, at most, or give "
                                 "neither for ImageNet's own train and val part")  # fmt: skip
            drawn.append(own[torch.from_numpy(random_state(QUERY_SEED).permutation(len(own)))])
        query_index = torch.cat([own[:query_per_class] for own in drawn]).sort().values
        database_index = torch.cat([own[query_per_class:query_per_class + database_per_class] for own in drawn]).sort().values
    if train is None:
        train = min(PAPER_TRAIN, max(1, round(len(database_index) * PAPER_TRAIN / PAPER_IMAGENET13_DATABASE)))
    names = tuple(colour_sources.IMAGENET13_CLASSES.get(wnid, wnid) for wnid in classes)
    return _decoded_split(
        "imagenet13", names, seed, [file for file, _ in listed], labels, database_index, query_index,
        draw(len(database_index), train, seed), sides, 3, workers, cache, {"size": list(sides), "classes": list(classes)},
    )  # fmt: skip


def _load_folder(
    path: str,
    root: str | Path | None,
    seed: int,
    *,
    size: int | tuple[int, int] = 32,
    channels: int = 3,
    query_share: float = 0.1,
    train_share: float = 0.5,
    workers: int = 0,
    cache: str | Path | None = None,
) -> RetrievalSplit:
    if not path:
        raise ValueError("'folder:' needs a path: 'folder:PATH', with one folder of images per class in PATH")
    sides = _check_form(size, channels)
    for option, share, highest in (("query_share", query_share, "<"), ("train_share", train_share, "<=")):
        number = isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1
        if not number or (highest == "<" and share == 1):
            raise ValueError(f"{option} must satisfy 0 < {option} {highest} 1, got {share!r}")
    folder = Path(root or "", path).expanduser().resolve()
    classes, paths, labels = sources.list_folder(folder)
    labels = torch.tensor(labels)
    sizes = labels.bincount().tolist()
    asked = [min(max(round(query_share * count), 1), count - 1) for count in sizes]
    query_index = draw_per_class(labels, asked, seed)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[query_index] = False
    database_index = rest.nonzero()[:, 0]  # (N - Q,)
    learned = [max(round(train_share * (count - out)), 1) for count, out in zip(sizes, asked, strict=True)]
    listed = [decoding.ImageFile(file.relative_to(folder).as_posix(), file) for file in paths]
    return _decoded_split(
        f"folder:{folder.name}", classes, seed, listed, labels, database_index, query_index,
        draw_per_class(labels[database_index], learned, seed), sides, channels, workers, cache,
        {"size": list(sides), "channels": channels, "query_share": query_share, "train_share": train_share},
    )  # fmt: skip


def _decoded_split(
    name: str, classes: tuple[str, ...], seed: int, listed: Sequence[decoding.ImageFile], labels: Tensor,
    database_index: Tensor, query_index: Tensor, train_index: Tensor, size: tuple[int, int], channels: int,
    workers: int, cache: str | Path | None, settings: dict[str, object],
) -> RetrievalSplit:  # fmt: skip
    """Decode the files of a split, database first: then both parts are views, and no pixel is in memory twice."""
    used = torch.cat([database_index, query_index])  # (N + Q,)
    chosen = [listed[row] for row in used.tolist()]
    images, digests = decoding.read_images(chosen, size, channels, workers=workers, cache=cache)
    in_order = used.argsort().tolist()  # as listed
    digest = decoding.files_digest([chosen[row] for row in in_order], [digests[row] for row in in_order])
    count = len(database_index)
    return make_split(
        name,
        classes,
        seed,
        database=ImageSet(images[:count], labels[database_index]),
        query=ImageSet(images[count:], labels[query_index]),
        train_index=train_index,
        database_index=database_index,
        query_index=query_index,
        source={"files": digest, **settings},
    )


def _check_form(size: int | tuple[int, int], channels: int) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(sides, (tuple, list))
        or len(sides) != 2
        or not all(type(side) is int and 1 <= side <= 4096 for side in sides)
    ):
        raise ValueError(f"size must be pixels, an int or (H, W), each in 1..4096, got {size!r}")
    if type(channels) is not int or channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels!r}")
    return tuple(sides)


def _check_counts(counts: dict[str, object]) -> None:
    for name, count in counts.items():
        if not is_whole(count, 1):
            raise ValueError(f"{name} must be a whole number of images, at least 1, got {count!r}")

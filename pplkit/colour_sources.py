"""CIFAR-10 and the 13 classes of ImageNet, in the forms that people have them. Find, read and verify; no splitting here.

Neither set is shipped or may be; see data/README.md.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pplkit.decoding import ImageFile
from pplkit.sources import DESKTOP_FILES, IMAGE_SUFFIXES, cache_folder

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_COUNTS = {"train": 50_000, "test": 10_000}
# sha256 over the sorted sha256 of every image with its label, so that it does not matter in which order or form they came.
CIFAR10_SHA256 = {
    "train": "fc36ff26702a9efdf08d3de274034c378032d3423bf7dd6c1022bebe6a7b810a",
    "test": "11be7cf3ed0bf1df2a473c0d4d3db6eafcac4518b49a5b4224077d754106b38d",
}
MOSAIC = (25, 40)  # rows and columns of tiles
TILE = 32  # pixels

IMAGENET13_CLASSES = {
    "n01443537": "goldfish", "n02056570": "king penguin", "n02099601": "golden retriever", "n02129165": "lion",
    "n02279972": "monarch", "n02504458": "African elephant", "n02814860": "beacon", "n03085013": "computer keyboard",
    "n03447447": "gondola", "n04146614": "school bus", "n04398044": "teapot", "n07873807": "pizza", "n09193705": "alp",
}  # fmt: skip
IMAGENET_PARTS = ("train", "val")
LARGEST_MEMBER = 64 * 2**20  # bytes of one image file in an archive


def places(root: str | Path | None) -> tuple[list[Path], Path]:
    """Folders to look in (`root` alone if given, else ``$PPLKIT_DATA`` and the cache), and the one to download into."""
    if root is not None:
        bases = [Path(root).expanduser()]
    else:
        home = os.environ.get("PPLKIT_DATA")
        bases = [*([Path(home).expanduser()] if home else []), cache_folder()]
    return bases, bases[0]


# ---- CIFAR-10


def read_cifar10(root: str | Path | None = None, download: bool = False) -> dict[str, tuple[Tensor, Tensor]]:
    """Read CIFAR-10: torchvision's files (``cifar-10-batches-py``), or lossless mosaics of 1,000 tiles with ``labels.npz``.

    Either way the images come in the same order (by the sha256 of image and label), so that a split is the same, too.

    Args:
        root: folder that holds one of them, itself or in its subfolder ``cifar10``.
        download: if they are nowhere, let torchvision fetch 170 MB.

    Returns:
        images uint8 and labels int64 by part: "train" (50000, 3, 32, 32), (50000,); "test" with 10000.

    Raises:
        FileNotFoundError: not to be found, or the download failed; lists the places and the ways to get it.
        ValueError: a file is there but damaged.
    """
    bases, target = places(root)
    looked = [base / below for base in bases for below in ("", "cifar10")]
    for folder in looked:
        if (folder / "cifar-10-batches-py").is_dir():
            return _canonical(_read_cifar10_batches(folder), verify=None)
        if (folder / "labels.npz").is_file():
            return _canonical(_read_mosaics(folder), verify=folder)
    help_text = ("Looked in" + (" (root is given, so nowhere else)" if root is not None else "") + ":\n"
                 + "\n".join(f"  {folder} (for cifar-10-batches-py or labels.npz)" for folder in looked)
                 + f"\nThree ways to get it:\n  1. load('cifar10', download=True) fetches 170 MB into {target}\n"
                 "  2. unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz into a folder and pass root=FOLDER\n"
                 "     or set PPLKIT_DATA=FOLDER (on the command line --root FOLDER)\n"
                 "  3. name a folder with labels.npz and its mosaics (data/README.md) in the same way")  # fmt: skip
    if not download:
        raise FileNotFoundError(f"cifar10 is not on this machine. {help_text}")
    try:
        return _canonical(_download_cifar10(target), verify=None)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(f"the download of cifar10 failed: {error}\n{help_text}") from error


def _read_cifar10_batches(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """torchvision's reader: it opens the pickled batches only if their checksums are the published ones."""
    from torchvision.datasets import CIFAR10

    try:
        parts = {part: CIFAR10(str(folder), train=part == "train", download=False) for part in CIFAR10_COUNTS}
    except RuntimeError as error:
        raise ValueError(f"{folder / 'cifar-10-batches-py'} is incomplete or damaged: remove the folder, then download=True "
                         f"fetches it again (torchvision: {error})") from error
    return {part: (data.data.transpose(0, 3, 1, 2), np.array(data.targets)) for part, data in parts.items()}


def _download_cifar10(target: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Fetch and unpack through torchvision in a folder of its own, and move the files into place once they are verified."""
    from torchvision.datasets import CIFAR10

    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".download-") as temporary:
        CIFAR10(temporary, download=True)
        parts = _read_cifar10_batches(Path(temporary))
        os.replace(Path(temporary) / "cifar-10-batches-py", target / "cifar-10-batches-py")
    return parts


def _read_mosaics(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`train_00.webp`, … and `test_00.webp`, …, each 25 × 40 tiles of 32 × 32 pixels row by row; labels in tile order."""
    parts = {}
    path = folder / "labels.npz"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            names = file.files
            labels = {part: file[f"y_{part}"] for part in CIFAR10_COUNTS if f"y_{part}" in names}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # TypeError: a single array
        raise ValueError(f"{path} is no archive of plain arrays, or damaged") from error
    if missing := [f"y_{part}" for part in CIFAR10_COUNTS if part not in labels]:
        raise ValueError(f"{path} has no {' and no '.join(missing)}; found {names}")
    rows, columns = MOSAIC
    for part, count in CIFAR10_COUNTS.items():
        tiles = []
        for number in range(count // (rows * columns)):
            path = folder / f"{part}_{number:02d}.webp"
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing: {part} has {count // (rows * columns)} mosaics")
            try:
                with Image.open(path, formats=["WEBP", "PNG"]) as image:
                    pixels = np.asarray(image.convert("RGB"))  # (25*32, 40*32, 3)
            except Exception as error:  # decoders raise whatever a damaged file leads them to
                raise ValueError(f"cannot read mosaic {path}: {error}") from error
            if pixels.shape != (rows * TILE, columns * TILE, 3):
                raise ValueError(f"{path} must be {columns * TILE} x {rows * TILE} pixels, found "
                                 f"{pixels.shape[1]} x {pixels.shape[0]}")
            grid = pixels.reshape(rows, TILE, columns, TILE, 3).transpose(0, 2, 4, 1, 3)  # (25, 40, 3, 32, 32)
            tiles.append(grid.reshape(rows * columns, 3, TILE, TILE))
        if labels[part].shape != (count,):
            raise ValueError(f"{folder / 'labels.npz'}: y_{part} must have shape ({count},), found {labels[part].shape}")
        parts[part] = np.concatenate(tiles), labels[part]
    return parts


def _canonical(parts: dict[str, tuple[np.ndarray, np.ndarray]], verify: Path | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Images and labels in the order of their sha256; with `verify`, the whole must be the published set."""
    ordered = {}
    for part, (images, labels) in parts.items():
        count = CIFAR10_COUNTS[part]
        if images.shape != (count, 3, TILE, TILE) or int(labels.max()) >= len(CIFAR10_CLASSES):
            raise ValueError(f"the {part} part of cifar10 must be ({count}, 3, 32, 32) with labels 0..9, found "
                             f"{images.shape} with labels up to {int(labels.max())}")
        images = np.ascontiguousarray(images)
        keys = cifar10_keys(images, labels)
        found, expected = hashlib.sha256(b"".join(sorted(keys))).hexdigest(), CIFAR10_SHA256[part]
        if verify is not None and found != expected:
            raise ValueError(f"{verify} does not hold CIFAR-10's {part} part: expected sha256 {expected}; found {found}")
        order = sorted(range(count), key=keys.__getitem__)
        ordered[part] = torch.from_numpy(images[order]), torch.from_numpy(labels[order].astype(np.int64))
    return ordered


def cifar10_keys(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    """sha256 of each image's bytes followed by its label's: what the order and the checksum are made of."""
    return [hashlib.sha256(image.tobytes() + bytes([int(label)])).digest() for image, label in zip(images, labels, strict=True)]


# ---- 13 classes of ImageNet


def list_imagenet13(root: str | Path | None, classes: Sequence[str]) -> dict[str, list[tuple[ImageFile, int]]]:
    """The image files of some ImageNet classes: class folders, or an uncompressed tar of them (read, never unpacked).

    Accepted in a place or its subfolder ``imagenet13``: ``train/WNID/*`` (and ``val/WNID/*``), ``WNID/*``, ``imagenet13*.tar``.

    Args:
        root: as `places`.
        classes: WordNet numbers, in the order of the labels.

    Returns:
        {"train": [(file, label), ...], "val": ...}, sorted by label and name; "val" is empty if there is none.

    Raises:
        FileNotFoundError: nowhere; lists the places and the forms.
        ValueError: a class without images, an odd file, an archive that is damaged, compressed or leads out of itself.
    """
    bases, _ = places(root)
    looked = [base / below for base in bases for below in ("", "imagenet13")]
    for folder in looked:
        for train in (folder / "train", folder):
            if any((train / wnid).is_dir() for wnid in classes):
                found = {"train": _list_part(train, "train", classes), "val": []}
                if train.name == "train" and any((folder / "val" / wnid).is_dir() for wnid in classes):
                    found["val"] = _list_part(folder / "val", "val", classes)
                return found
        archives = sorted(folder.glob("imagenet13*.tar")) if folder.is_dir() else []
        if archives:
            return _list_archive(archives[0], classes)
    raise FileNotFoundError(
        "imagenet13 is not on this machine. Looked in"
        + (" (root is given, so nowhere else)" if root is not None else "") + ":\n"
        + "\n".join(f"  {folder} (for train/{classes[0]}, {classes[0]} or imagenet13*.tar)" for folder in looked)
        + "\nIt cannot be fetched: ImageNet is given by https://image-net.org to people who accept its terms. Put the class\n"
        f"folders {classes[0]}, … into a folder and pass root=FOLDER or set PPLKIT_DATA=FOLDER"
    )  # fmt: skip


def _list_part(folder: Path, part: str, classes: Sequence[str]) -> list[tuple[ImageFile, int]]:
    listed = []
    for label, wnid in enumerate(classes):
        names = sorted(path.name for path in (folder / wnid).iterdir() if not _passed_over(path.name)) if (
            folder / wnid).is_dir() else []
        if not names:
            raise ValueError(f"{folder} has no images of class {wnid}: expected a folder {folder / wnid}")
        for name in names:
            if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                raise ValueError(f"{folder / wnid / name} is no image file ({' '.join(IMAGE_SUFFIXES)}); move it elsewhere")
            listed.append((ImageFile(f"{part}/{wnid}/{name}", folder / wnid / name), label))
    return listed


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in DESKTOP_FILES


def _list_archive(path: Path, classes: Sequence[str]) -> dict[str, list[tuple[ImageFile, int]]]:
    listed: dict[str, list[tuple[ImageFile, int]]] = {part: [] for part in IMAGENET_PARTS}
    seen: set[str] = set()

    def complaint(what: str) -> ValueError:
        return ValueError(f"{path} is refused: {what}")

    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if member.isdir():
                    continue
                if not member.isreg() or member.sparse is not None:
                    raise complaint(f"member {member.name!r} is no plain file")
                if PurePosixPath(member.name).is_absolute() or ".." in parts or "\\" in member.name:
                    raise complaint(f"member {member.name!r} leads out of the archive")
                parts = tuple(part for part in parts if part != ".")
                if len(parts) != 3 or parts[0] not in IMAGENET_PARTS or parts[1] not in classes or _passed_over(parts[2]):
                    continue  # lists, notes, other classes
                name = "/".join(parts)
                if member.size > LARGEST_MEMBER:
                    raise complaint(f"member {member.name!r} has {member.size} bytes, more than {LARGEST_MEMBER}")
                if name in seen:
                    raise complaint(f"member {member.name!r} comes twice")
                if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
                    raise complaint(f"member {member.name!r} is no image file")
                seen.add(name)
                listed[parts[0]].append((ImageFile(name, path, member.offset_data, member.size), classes.index(parts[1])))
            archive.fileobj.seek(archive.offset)  # tarfile also stops, without a word, at a header that is cut off or damaged
            end = archive.fileobj.read(2 * tarfile.BLOCKSIZE)
            if len(end) < 2 * tarfile.BLOCKSIZE or any(end):
                raise complaint("damaged or cut off: no end-of-archive mark where its list of members ends")
    except tarfile.TarError as error:
        raise complaint(f"not a complete, uncompressed tar ({error})") from error
    for part, found in listed.items():
        present = {label for _, label in found}
        missing = [wnid for label, wnid in enumerate(classes) if label not in present]
        if missing and (found or part == "train"):
            raise ValueError(f"{path} has no {part} images of {', '.join(missing)}")
        found.sort(key=lambda entry: (entry[1], entry[0].name))
    return listed

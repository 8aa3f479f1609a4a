"""Where images come from: idx files, the embedded sample, class folders. Find, read and verify; no splitting here.

Every reader checks what it read before it returns, and names the file, what was expected and what was found.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import tempfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pplkit.decoding import first_of, suffixes

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# Shape and sha256 of each file's content when unpacked, so that it does not matter who compressed it.
FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": (
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (
        (60_000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": (
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        (10_000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
# Of a published set's files, see `colour_sources`; folders of one's own hold whatever `decoding.formats` has.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
DESKTOP_FILES = ("thumbs.db", "desktop.ini")  # of Windows; dot files are skipped too


def read_idx(path: Path, shape: Sequence[int], sha256: str | None = None) -> np.ndarray:
    """Read an idx file of unsigned bytes (http://yann.lecun.com/exdb/mnist), plain or gzip.

    Never unpacks more than ``shape`` needs, so a hostile archive cannot fill the memory.

    Args:
        path: the file; gzip if its name ends in ``.gz``.
        shape: the only accepted shape.
        sha256: of the unpacked content, header included; None checks header and size alone.

    Returns:
        uint8 array of that shape.

    Raises:
        ValueError: truncated, longer, of another shape, or with another checksum; quotes expected and found.
    """
    header = np.array([0x0800 + len(shape), *shape], dtype=">u4").tobytes()  # 0x08: unsigned bytes
    size = len(header) + math.prod(shape)
    wanted = f"an idx file of unsigned bytes, shape {tuple(shape)}, {size} bytes when unpacked"
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(size + 1)  # the byte too many makes gzip reach, and check, its own checksum
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged: expected {wanted}; found: {error}") from error
    if len(content) < len(header) or content[: len(header)] != header:
        found = content[: len(header)].hex(" ", 4) or "an empty file"
        raise ValueError(f"{path} has a wrong header: expected {header.hex(' ', 4)}, {wanted}; found {found}")
    if len(content) != size:
        found = f"only {len(content)} bytes" if len(content) < size else f"more than {size} bytes"
        raise ValueError(f"{path} has a wrong size: expected {wanted}; found {found}")
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{path} has wrong content: expected sha256 {sha256} when unpacked; found {found}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def cache_folder() -> Path:
    """Where downloads go unless ``root`` or ``$PPLKIT_DATA`` says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pplkit"


def _locate(bases: Sequence[Path]) -> tuple[dict[str, Path] | None, list[str]]:
    """The four files of the first folder that has them all, and a line for each folder looked at."""
    looked = []
    for folder in [base / below for base in bases for below in ("", "fashion-mnist", "FashionMNIST/raw")]:
        found = {}
        for name in FASHION_MNIST_FILES:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    found.setdefault(name, path)
        if len(found) == len(FASHION_MNIST_FILES):
            return found, looked
        missing = ", ".join(name for name in FASHION_MNIST_FILES if name not in found)
        looked.append(f"  {folder}" + (f" (without {missing})" if found else ""))
    return None, looked


def read_fashion_mnist(
    root: str | Path | None = None, download: bool = False
) -> dict[str, tuple[Tensor, Tensor]]:
    """Read Fashion-MNIST: from ``root`` alone if given, else ``$PPLKIT_DATA``, Debian's folder or the cache.

    Args:
        root: folder that holds the four idx files (plain or .gz), itself or in its subfolder
            ``fashion-mnist`` or ``FashionMNIST/raw``.
        download: if they are nowhere, fetch them into ``root``, else ``$PPLKIT_DATA``, else the cache.

    Returns:
        images uint8 and labels int64 by part: "train" (60000, 1, 28, 28), (60000,); "t10k" with 10000.

    Raises:
        FileNotFoundError: not to be found, or the download failed; lists the places and the ways to get it.
        ValueError: a file is there but damaged.
    """
    if root is not None:
        bases = [Path(root).expanduser()]
    else:
        home = os.environ.get("PPLKIT_DATA")
        bases = [*([Path(home).expanduser()] if home else []), DEBIAN_FOLDER, cache_folder()]
    target = bases[0] if bases[0] != DEBIAN_FOLDER else bases[-1]
    paths, looked = _locate(bases)
    if paths is None:
        help_text = (
            "Looked in" + (" (root is given, so nowhere else)" if root is not None else "") + ":\n"
            + "\n".join(looked)
            + "\nThree ways to get it:\n"
            "  1. Debian, Ubuntu: apt install dataset-fashion-mnist\n"
            f"  2. load('fashion-mnist', download=True) fetches 30 MB into {target}\n"
            f"  3. put {', '.join(f'{name}.gz' for name in FASHION_MNIST_FILES)}\n"
            "     into a folder and pass root=FOLDER or set PPLKIT_DATA=FOLDER"
        )  # fmt: skip
        if not download:
            raise FileNotFoundError(f"fashion-mnist is not on this machine. {help_text}")
        try:
            paths = _download(target)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(f"the download of fashion-mnist failed: {error}\n{help_text}") from error
    parts = {}
    for part in ("train", "t10k"):
        images, labels = (
            torch.tensor(read_idx(paths[name], *FASHION_MNIST_FILES[name]))
            for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
        )
        parts[part] = images[:, None], labels.long()  # (N, 1, 28, 28), (N,)
    return parts


def _download(target: Path) -> dict[str, Path]:
    """Fetch the four files through torchvision and move each into place once it is verified."""
    from torchvision.datasets import FashionMNIST

    folder = target / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".download-") as temporary:
        FashionMNIST(temporary, download=True)
        for name, (shape, sha256) in FASHION_MNIST_FILES.items():
            fetched = Path(temporary) / "FashionMNIST" / "raw" / name
            read_idx(fetched, shape, sha256)
            os.replace(fetched, folder / name)
    return {name: folder / name for name in FASHION_MNIST_FILES}


@lru_cache(maxsize=2)
def read_mini(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read the embedded sample; the second call answers from memory.

    Args:
        path: the .npz file, see ``tools/make_mini.py``.
        sha256: of that file.

    Returns:
        read-only arrays, for each part in ("database", "query"): ``part_images`` uint8 (N, 28, 28),
        ``part_labels`` uint8 (N,), ``part_index`` int32 (N,): position in Fashion-MNIST, test after train.

    Raises:
        ValueError: the file is not the one that was published; quotes both checksums.
    """
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{path} is damaged: expected sha256 {sha256}; found {found}, {len(content)} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def list_folder(path: Path) -> tuple[tuple[str, ...], list[Path], list[int]]:
    """The class folders below ``path`` and their image files, sorted by name (without its suffix, so that the copy that
    `pplkit protect` makes comes in the same order).

    Returns:
        class names, image files (grouped by class), class number of each file.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: not class folders of images, files that are none (by their suffix; the first ten are named), fewer than 2
            classes, or fewer than 2 images in a class.
    """
    needed = "'folder:PATH' needs a folder that holds one folder of images per class"
    if not path.exists():
        raise FileNotFoundError(f"no folder {path}; {needed}")
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder; {needed}")
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    accepted = suffixes()
    for entry in entries:
        if entry.is_file() and entry.suffix.lower() in accepted:
            raise ValueError(f"{entry} is an image outside the class folders; move it into one of them")
    folders = [entry for entry in entries if entry.is_dir()]
    if len(folders) < 2:
        found = [folder.name for folder in folders]
        raise ValueError(f"{path} must hold at least 2 class folders, found {found}")
    files, labels, others = [], [], []
    for label, folder in enumerate(folders):
        images = [
            file for file in sorted(folder.iterdir(), key=lambda file: (file.with_suffix(""), file.suffix))
            if not file.name.startswith(".") and file.name.lower() not in DESKTOP_FILES
        ]  # fmt: skip
        others += [file for file in images if not file.is_file() or file.suffix.lower() not in accepted]
        if len(images) < 2 and not others:
            raise ValueError(
                f"class folder {folder} needs at least 2 images (one query, one to find), found {len(images)}"
            )
        files += images
        labels += [label] * len(images)
    if others:
        raise ValueError(first_of([f"{file} is no image file (no suffix of Pillow's, as .png, .jpg or .avif); move it elsewhere"
                                  for file in others]))
    return tuple(folder.name for folder in folders), files, labels

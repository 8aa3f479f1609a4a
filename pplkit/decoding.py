"""Image files to one uint8 tensor: by several workers if wished, in memory or in a file that is mapped into memory.

The result does not depend on the number of workers or on where the pixels are kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pplkit.storage import save_json

BATCH = 64  # files that a worker hands over at a time


@dataclass(frozen=True)
class ImageFile:
    """An image file, or the part of an uncompressed archive that holds one.

    Attributes:
        name: how it is called in the data set, with "/".
        path: the file, or the archive.
        offset, length: the part in bytes; length None: to the end.
    """

    name: str
    path: Path
    offset: int = 0
    length: int | None = None

    def read(self) -> bytes:
        """The bytes of the image file."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.length is None else self.length)


def decode(name: str | Path, content: bytes, size: tuple[int, int], channels: int) -> np.ndarray:
    """One image: turned upright (EXIF), centre-cropped to the aspect of `size`, resized, in grey or RGB.

    Args:
        name: for the error message.
        content: of the file, in any format that Pillow reads.
        size: (H, W) in pixels.
        channels: 1 or 3.

    Returns:
        uint8 (C, H, W).

    Raises:
        ValueError: unreadable, or more than 8 bits per channel.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode!r} has more than 8 bits per channel; save it with 8")
            upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(upright, (size[1], size[0]), Image.Resampling.BICUBIC)
            pixels = np.array(fitted)  # (H, W) or (H, W, 3)
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ValueError(f"cannot read image {name}: {error}") from error
    return pixels.reshape(*size, channels).transpose(2, 0, 1)  # (C, H, W)


class _Decoded(Dataset):
    def __init__(self, files: Sequence[ImageFile], size: tuple[int, int], channels: int):
        self.files, self.size, self.channels = files, size, channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, str, str]:
        file = self.files[row]
        try:
            content = file.read()
            place = file.path if file.length is None else f"{file.path}: {file.name}"
            pixels = torch.from_numpy(np.ascontiguousarray(decode(place, content, self.size, self.channels)))
            return pixels, hashlib.sha256(content).hexdigest(), ""
        except (OSError, ValueError) as error:  # an exception would come out of a worker wrapped in its traceback
            return torch.zeros(self.channels, *self.size, dtype=torch.uint8), "", str(error)


def read_images(files: Sequence[ImageFile], size: tuple[int, int], channels: int, *, workers: int = 0,
                cache: str | Path | None = None) -> tuple[Tensor, list[str]]:
    """Decode all files.

    Args:
        files: in the order of the rows.
        size: (H, W) in pixels.
        channels: 1 or 3.
        workers: processes that decode; 0: this one.
        cache: folder for the decoded pixels, for sets beyond memory: they are written there once, the next call with the same
            files (name, size, time of change) only opens them, and the tensor is mapped from disk, read as it is used.

    Returns:
        images uint8 (N, C, H, W), and the sha256 of each file's content.

    Raises:
        ValueError: an unreadable image (named); a bad number of workers.
        OSError: the cache folder cannot be written.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise ValueError(f"workers must be a whole number of at least 0, got {workers!r}")
    shape = (len(files), channels, *size)
    if cache is None:
        images = torch.empty(shape, dtype=torch.uint8)  # (N, C, H, W)
        return images, _fill(images, files, workers)
    folder, key = Path(cache).expanduser(), _key(files, shape)
    pixels, note = folder / f"{key}.uint8", folder / f"{key}.json"
    if not note.is_file() or not pixels.is_file() or pixels.stat().st_size != math.prod(shape):
        folder.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        partial = folder / f"{key}.{os.getpid()}.partial"
        try:
            digests = _fill(_mapped(partial, shape, writable=True), files, workers)
            os.replace(partial, pixels)
        finally:
            partial.unlink(missing_ok=True)
        save_json(note, {"shape": list(shape), "files": digests})
    return _mapped(pixels, shape, writable=False), json.loads(note.read_text())["files"]


def _mapped(path: Path, shape: tuple[int, ...], writable: bool) -> Tensor:
    """A file as a tensor. Not writable: changes of the tensor stay in memory, the file keeps its pixels."""
    return torch.from_file(str(path), shared=writable, size=math.prod(shape), dtype=torch.uint8).view(shape)


def _key(files: Sequence[ImageFile], shape: tuple[int, ...]) -> str:
    digest = hashlib.sha256(repr(shape).encode())
    for file in files:
        state = file.path.stat()
        digest.update(repr((file.name, file.offset, file.length, state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()[:32]


def _fill(images: Tensor, files: Sequence[ImageFile], workers: int) -> list[str]:
    """Decode into `images`; the sha256 of each file's content."""
    loader = DataLoader(_Decoded(files, tuple(images.shape[2:]), images.shape[1]), BATCH, num_workers=workers,
                        collate_fn=list, generator=torch.Generator())
    digests = []
    for batch in loader:
        for pixels, digest, error in batch:
            if error:
                raise ValueError(error)
            images[len(digests)] = pixels
            digests.append(digest)
    return digests


def files_digest(files: Sequence[ImageFile], digests: Sequence[str]) -> str:
    """One sha256 over the files' names and contents, in the order given."""
    total = hashlib.sha256()
    for file, digest in zip(files, digests, strict=True):
        total.update(f"{file.name}\0{digest}\n".encode())
    return total.hexdigest()

"""Which image files are read, and how; image files to one uint8 tensor: by several workers if wished, in memory or in a file
that is mapped into memory.

The result does not depend on the number of workers or on where the pixels are kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pplkit.preconditions import check_whole
from pplkit.storage import reserve, save_json

BATCH = 64  # files that a worker hands over at a time
NAMED = 10  # files that one message names
# EPS: its reader starts another program; IPTC: it opens what is inside, of any format; Pillow only recognises the others
NOT_READ = ("EPS", "IPTC", "BUFR", "GRIB", "HDF5", "MPEG")
BITS_PER_SAMPLE = 258  # a TIFF tag: 12-bit values lie in 16 bits and are not scaled
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode "I" holds 0..65535


def formats() -> list[str]:
    """Pillow's names of the formats that are read, whatever a file is called."""
    Image.init()
    return [name for name in Image.OPEN if name not in NOT_READ]


def suffixes() -> set[str]:
    """What the names of files in these `formats` end in, as ".png"."""
    accepted = formats()
    return {suffix for suffix, name in Image.registered_extensions().items() if name in accepted}


def eight_bits(image: Image.Image) -> Image.Image:
    """Decoded; grey of 9 to 16 bits as mode "L" (255 v / highest value, rounded), or "LA" if one value stands for transparent.
    Raises ValueError where the range of the values is unknown.
    """
    image.load()
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BITS)
    if image.mode.startswith(("I", "F")) and not sixteen:
        raise ValueError(f"mode {image.mode!r} has more than 16 bits per pixel; save it with 8 or 16")
    if not sixteen:
        return image
    bits = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0] if image.format == "TIFF" else 16  # the others are scaled by Pillow
    values, highest = np.asarray(image).astype(np.int64), 2**bits - 1  # (H, W)
    reduced = Image.fromarray(((510 * values + highest) // (2 * highest)).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        reduced.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    reduced.info = {"exif": image.info["exif"]} if "exif" in image.info else {}
    return reduced


def why_unreadable(error: Exception, name: str | Path = "") -> str:
    """What a decoder's error says. For an unknown format Pillow would show the Python object that it was given: `name` it."""
    if isinstance(error, UnidentifiedImageError):
        return f"cannot identify image file{f' {name}' if str(name) else ''}: it is in no format that is read here"
    return str(error) or type(error).__name__


def first_of(messages: Sequence[str]) -> str:
    """One message to a line, and how many more there are."""
    more = len(messages) - NAMED
    return "\n".join([*messages[:NAMED], *([f"and {more} more"] if more > 0 else [])])


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
        content: of the file, in any of the `formats`; 16-bit grey is brought to 8 bits.
        size: (H, W) in pixels.
        channels: 1 or 3.

    Returns:
        uint8 (C, H, W).

    Raises:
        ValueError: unreadable, or more than 16 bits per channel.
    """
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as image:
            upright = ImageOps.exif_transpose(eight_bits(image)).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(upright, (size[1], size[0]), Image.Resampling.BICUBIC)
            pixels = np.array(fitted)  # (H, W) or (H, W, 3)
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ValueError(f"cannot read image {name}: {why_unreadable(error)}") from error
    return pixels.reshape(*size, channels).transpose(2, 0, 1)  # (C, H, W)


class _Decoded(Dataset):
    def __init__(self, files: Sequence[ImageFile], size: tuple[int, int], channels: int):
        self.files, self.size, self.channels = files, size, channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[np.ndarray, str, str]:
        # arrays: each tensor would take a file descriptor and a piece of shared memory on its way out of a worker
        file = self.files[row]
        try:
            content = file.read()
            place = file.path if file.length is None else f"{file.path}: {file.name}"
            pixels = np.ascontiguousarray(decode(place, content, self.size, self.channels))
            return pixels, hashlib.sha256(content).hexdigest(), ""
        except (OSError, ValueError) as error:  # an exception would come out of a worker wrapped in its traceback
            return np.zeros((self.channels, *self.size), np.uint8), "", str(error)


def read_images(files: Sequence[ImageFile], size: tuple[int, int], channels: int, *, workers: int = 0,
                cache: str | Path | None = None) -> tuple[Tensor, list[str]]:
    """Decode all files.

    Args:
        files: in the order of the rows.
        size: (H, W) in pixels.
        channels: 1 or 3.
        workers: processes that decode; 0: this one.
        cache: folder for the decoded pixels, for sets beyond memory: they are written there once, the next call with the same
            files (path, size, times of change) only opens them, and the tensor is mapped from disk, read as it is used.

    Returns:
        images uint8 (N, C, H, W), and the sha256 of each file's content.

    Raises:
        ValueError: unreadable images (the first ten are named); a bad number of workers.
        OSError: the cache folder cannot be written.
    """
    check_whole(workers, "workers", 0)
    shape = (len(files), channels, *size)
    if cache is None:
        images = torch.empty(shape, dtype=torch.uint8)  # (N, C, H, W)
        return images, _fill(images, files, workers)
    folder, key = Path(cache).expanduser(), _key(files, shape)
    pixels, note = folder / f"{key}.uint8", folder / f"{key}.json"
    if not note.is_file() or not pixels.is_file() or pixels.stat().st_size != math.prod(shape):
        folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(".partial", f"{key}.", folder)
        try:
            with os.fdopen(handle, "r+b") as file:
                reserve(file.fileno(), math.prod(shape))
                digests = _fill(_mapped(partial, shape, writable=True), files, workers)
                os.fsync(file.fileno())  # before the note says that they are there
            os.replace(partial, pixels)
        finally:
            Path(partial).unlink(missing_ok=True)
        save_json(note, {"shape": list(shape), "files": digests})
    return _mapped(pixels, shape, writable=False), json.loads(note.read_text())["files"]


def _mapped(path: str | Path, shape: tuple[int, ...], writable: bool) -> Tensor:
    """A file as a tensor. Not writable: changes of the tensor stay in memory, the file keeps its pixels."""
    return torch.from_file(str(path), shared=writable, size=math.prod(shape), dtype=torch.uint8).view(shape)


def _key(files: Sequence[ImageFile], shape: tuple[int, ...]) -> str:
    digest = hashlib.sha256(repr((shape, PIL.__version__)).encode())  # another Pillow may decode otherwise
    for file in files:
        state = file.path.stat()
        place = (str(file.path.resolve()), file.name, file.offset, file.length)
        digest.update(repr((*place, state.st_size, state.st_mtime_ns, state.st_ctime_ns)).encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _fill(images: Tensor, files: Sequence[ImageFile], workers: int) -> list[str]:
    """Decode into `images`; the sha256 of each file's content."""
    loader = DataLoader(_Decoded(files, tuple(images.shape[2:]), images.shape[1]), BATCH, num_workers=workers,
                        collate_fn=list, generator=torch.Generator())
    digests, errors = [], []
    for batch in loader:
        for pixels, digest, error in batch:
            if error:
                errors.append(error)
            images[len(digests)] = torch.from_numpy(pixels)
            digests.append(digest)
    if errors:
        raise ValueError(first_of(errors))
    return digests


def files_digest(files: Sequence[ImageFile], digests: Sequence[str]) -> str:
    """One sha256 over the files' names and contents, in the order given."""
    total = hashlib.sha256()
    for file, digest in zip(files, digests, strict=True):
        total.update(f"{file.name}\0{digest}\n".encode(errors="surrogateescape"))
    return total.hexdigest()

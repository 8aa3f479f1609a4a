"""One picture of any size and format: read it safely, protect it, hand it back as 8-bit PNG."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from pplkit import budget
from pplkit.budget import to_float
from pplkit.decoding import eight_bits, formats, why_unreadable
from pplkit.generator import PerturbationGenerator
from pplkit.quality import ssim

MAX_PIXELS = 100_000_000  # of one picture; a decompression bomb claims more
TILE = 512  # pixels; a multiple of 2^4, so that tiles and the whole picture share the generator's grid
SSIM_WINDOW = 7
GREY_MODES = ("1", "L", "LA", "La")


class UnreadablePicture(ValueError):
    """A file that cannot be turned into pixels; the message says why."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels of one picture, upright.

    Attributes:
        pixels: uint8 (1, C, H, W), C = 1 (grey) or 3 (RGB).
        alpha: uint8 (H, W), or None for an opaque picture.
        profile: ICC colour profile of the pixels, or None. Nothing else (EXIF, place, camera) is kept.
        note: what was lost on the way, "" if nothing was.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    profile: bytes | None = None
    note: str = ""


class _PillowLimit:
    """Pillow's own limit, which holds for the whole process, lifted to ours while pictures are read; the last reader puts it
    back. Readers in other threads may have other limits.
    """

    def __init__(self) -> None:
        self.lock, self.readers, self.before = Lock(), [], None

    @contextmanager
    def at_least(self, pixels: int) -> Iterator[None]:
        with self.lock:
            if not self.readers:
                self.before = Image.MAX_IMAGE_PIXELS
            self.readers.append(pixels)
        try:
            with self.lock:
                self._set()
            yield
        finally:
            with self.lock:
                self.readers.remove(pixels)
                self._set()

    def _set(self) -> None:
        if self.before is not None:  # None: somebody has switched it off
            Image.MAX_IMAGE_PIXELS = max([self.before, *self.readers])


_pillow_limit = _PillowLimit()


def read_picture(path: str | Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read any picture that Pillow reads: turned upright (EXIF), grey stays grey, all else becomes RGB; alpha is kept.

    More than 8 bits are brought to 8 (plain grey rounded, all else cut off); of an animation the first frame is taken. `note`
    says so, and that CMYK was converted without its colour profile.

    Args:
        path: the file, or one that is open for reading.
        max_pixels: refuse larger pictures, before they are decoded; Pillow's own limit gives way to it.

    Raises:
        UnreadablePicture: whatever the reason.
    """
    try:
        with _pillow_limit.at_least(max_pixels), Image.open(path, formats=formats()) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"{image.width} x {image.height} pixels are more than the {max_pixels} allowed; "
                                 "raise the limit if the file is trusted")
            frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # phones append a preview to an MPO
            deep = image.mode.startswith("I") or _has_sixteen_bits(image)
            lost = {f"first of {frames} frames": frames > 1, "more than 8 bits brought to 8": deep,
                    "CMYK converted without its colour profile": image.mode == "CMYK" and "icc_profile" in image.info}
            profile = image.info.get("icc_profile")
            upright = ImageOps.exif_transpose(eight_bits(image))
            grey = upright.mode in GREY_MODES
            transparent = "transparency" in upright.info or upright.mode in ("LA", "La", "PA", "RGBA", "RGBa")
            fitted = upright.convert(("L" if grey else "RGB") + ("A" if transparent else ""))
            values = np.array(fitted).reshape(fitted.height, fitted.width, -1)  # (H, W, bands)
    except Image.DecompressionBombError as error:  # Pillow refuses at twice the limit, before we see the size
        raise UnreadablePicture(f"more than the {max_pixels} pixels allowed; raise the limit if the file is trusted "
                                f"({error})") from error
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise UnreadablePicture(why_unreadable(error, path if isinstance(path, (str, Path)) else "")) from error
    channels = 1 if grey else 3
    pixels = torch.from_numpy(values[None, ..., :channels].transpose(0, 3, 1, 2).copy())  # (1, C, H, W)
    alpha = torch.from_numpy(values[..., -1].copy()) if transparent else None  # (H, W)
    space = {1: b"GRAY", 3: b"RGB "}[channels]
    return Picture(pixels, alpha, profile if profile and profile[16:20] == space else None,
                   "; ".join(what for what, so in lost.items() if so))


def _has_sixteen_bits(image: Image.Image) -> bool:
    """Whether a picture that is not decoded yet has 16 bits per channel in its file; Pillow cuts colours off to 8."""
    tiles = getattr(image, "tile", [])
    return any(re.search(";16[BLN]", str(tile.args))  # "RGB;16B", or a tuple that begins with it; B, L, N: the bytes' order
               or tile.codec_name == "SGI16"
               or (tile.codec_name.startswith("ppm") and isinstance(tile.args, tuple) and tile.args[1] > 255)  # the maximum
               for tile in tiles)


def write_picture(picture: Picture, path: str | Path, compress_level: int = 3) -> None:
    """Write `picture` as 8-bit PNG, which loses nothing (no metadata but the colour profile)."""
    values = picture.pixels[0].permute(1, 2, 0)  # (H, W, C)
    if picture.alpha is not None:
        values = torch.cat([values, picture.alpha[..., None]], 2)  # (H, W, C + 1)
    array = values.numpy()
    image = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    options = {} if picture.profile is None else {"icc_profile": picture.profile}
    image.save(path, "PNG", compress_level=compress_level, **options)


def picture_pattern(generator: PerturbationGenerator, pixels: Tensor, *, tile: int = TILE,
                    pattern_size: int | None = None) -> Tensor:
    """The generator's pattern for a picture of any size and either number of channels.

    A colour generator sees a grey picture as three equal channels, and the mean of its three patterns is used. A grey generator
    sees a colour picture's luminance (0.299 R + 0.587 G + 0.114 B), and its pattern is used for R, G and B alike.

    Args:
        generator: in eval mode.
        pixels: uint8 (1, C, H, W).
        tile: larger pictures are cut into tiles of this side, so that memory stays bounded (a colour generator of full
            resolution needs about a gigabyte for each of a few activations). Tiles overlap by more than the generator can see;
            the result is that of the whole picture. A multiple of 2 ** (generator's stages).
        pattern_size: None: the pattern is made at the picture's own size. Else it is made on the picture reduced until its
            shorter side has this many pixels, and enlarged again (bilinear): such a coarse pattern survives a search engine
            that shrinks what it finds. Smaller pictures keep their size.

    Returns:
        float (1, C, H, W) in [−1, 1], on the generator's device.
    """
    stride = 2 ** len(generator.widths)
    if tile < stride or tile % stride:
        raise ValueError(f"tile must be a multiple of {stride}, got {tile!r}")
    if pattern_size is not None and pattern_size < 1:
        raise ValueError(f"pattern_size must be at least 1 pixel, or None, got {pattern_size!r}")
    channels, height, width = pixels.shape[1:]
    device = next(generator.parameters()).device
    shorter = min(height, width)
    if pattern_size is not None and shorter > pattern_size:
        small = [max(1, round(side * pattern_size / shorter)) for side in (height, width)]
        reduced = interpolate(to_float(pixels), small, mode="bilinear", antialias=True)
        pattern = channel_pattern(generator, reduced.to(device))  # (1, C, h, w)
        return interpolate(pattern, (height, width), mode="bilinear", align_corners=False)
    margin = 4 * stride  # further than one output pixel sees: 2^(n+1) − 2 pixels down, as many up, rounded to the grid
    pattern = torch.empty(pixels.shape, device=device)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y, x = max(top - margin, 0), max(left - margin, 0)
            part = to_float(pixels[..., y:top + tile + margin, x:left + tile + margin].to(device))
            made = channel_pattern(generator, part)[..., top - y:top - y + tile, left - x:left - x + tile]
            pattern[..., top:top + tile, left:left + tile] = made
    return pattern


def channel_pattern(generator: PerturbationGenerator, images: Tensor) -> Tensor:
    """Pattern for float images (B, C, H, W) in [0, 1], C = 1 or 3, whatever the generator's number of channels."""
    channels = images.shape[1]
    if channels == generator.channels:
        return generator(images)  # (B, C, H, W)
    if channels == 3:
        weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
        return generator((images * weights).sum(1, keepdim=True)).expand(-1, 3, -1, -1)  # (B, 3, H, W)
    return generator(images.expand(-1, 3, -1, -1)).mean(1, keepdim=True)  # (B, 1, H, W)


@torch.no_grad()
def protect_picture(picture: Picture, generator: PerturbationGenerator, epsilon: float, norm: str | float = "inf", *,
                    tile: int = TILE, pattern_size: int | None = None) -> Picture:
    """A protected copy, within the budget in every published grey level; alpha and colour profile are taken over.

    Args:
        picture: clean.
        generator: in eval mode; for 1 or 3 channels, see `picture_pattern`.
        epsilon, norm: the budget, see `pplkit.budget`.
        tile, pattern_size: see `picture_pattern`.

    Raises:
        ValueError: bad budget or option, NaN from the generator.
    """
    pixels = picture.pixels
    pattern = picture_pattern(generator, pixels, tile=tile, pattern_size=pattern_size).cpu()  # (1, C, H, W)
    protected = torch.empty_like(pixels)
    rows = TILE if norm in ("inf", float("inf")) else pixels.shape[2]  # the other norms are of the whole picture
    for top in range(0, pixels.shape[2], rows):
        part = pixels[..., top:top + rows, :]
        z = budget.adversarial(to_float(part), pattern[..., top:top + rows, :], epsilon, norm)
        protected[..., top:top + rows, :] = budget.enforce(part, z, epsilon, norm)
    return Picture(protected, picture.alpha, picture.profile, picture.note)


def picture_ssim(clean: Tensor, protected: Tensor, rows: int = TILE) -> float | None:
    """`quality.ssim` of one picture, uint8 (1, C, H, W), in strips: same value, bounded memory; None below 7 × 7 pixels."""
    height, width = clean.shape[2:]
    if min(height, width) < SSIM_WINDOW:
        return None
    total, windows = 0.0, height - SSIM_WINDOW + 1  # rows of windows
    for top in range(0, windows, rows):
        count = min(rows, windows - top)
        strip = slice(top, top + count + SSIM_WINDOW - 1)
        total += float(ssim(clean[..., strip, :], protected[..., strip, :])) * count
    return total / windows

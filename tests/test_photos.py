"""pplkit.photos: any picture in, the same picture protected out, within the budget."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit import budget, photos, quality
from pplkit.generator import PerturbationGenerator
from pplkit.photos import UnreadablePicture, picture_pattern, protect_picture, read_picture, write_picture


def generator(channels: int = 1) -> PerturbationGenerator:
    """A generator with a strong pattern and lively statistics, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = PerturbationGenerator(channels, (4, 4, 4, 4))
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.05, 0.2)
        return made.eval()


def picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return random.integers(0, 256, shape, dtype=np.uint8)


def saved(image: Image.Image, format: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


# ---- reading


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "PPM", "TGA", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_of_lossless_formats_come_as_they_are(mode, format):
    array = picture(5, 7, 1 if mode == "L" else 3)
    if format == "GIF" and mode == "RGB":
        array = array // 128 * 255  # few enough colours for a palette
    read = read_picture(saved(Image.fromarray(array), format, **({"lossless": True} if format == "WEBP" else {})))
    expected = torch.from_numpy(array).reshape(5, 7, -1).permute(2, 0, 1)
    assert torch.equal(read.pixels[0], expected.expand(read.pixels.shape[1], -1, -1))  # WebP stores grey as RGB
    assert read.alpha is None and read.note == "" and read.pixels.dtype == torch.uint8


@pytest.mark.parametrize("mode, channels", [("LA", 1), ("RGBA", 3)])
def test_alpha_and_hidden_colours_are_kept(mode, channels, tmp_path):
    array = picture(6, 4, 2 if mode == "LA" else 4)
    array[0, :, -1] = 0  # fully transparent, with a colour below
    read = read_picture(saved(Image.fromarray(array, mode)))
    assert read.pixels.shape == (1, channels, 6, 4)
    write_picture(read, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == mode and np.array_equal(np.array(image), array)


def test_transparency_of_palettes_and_of_one_colour_becomes_alpha():
    palette = Image.new("P", (3, 2), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 1), 1)
    read = read_picture(saved(palette, "GIF", transparency=1))
    assert read.pixels.shape[1] == 3 and read.alpha.tolist() == [[255, 255, 255], [255, 0, 255]]
    grey = Image.fromarray(np.array([[5, 9]], np.uint8))
    read = read_picture(saved(grey, "PNG", transparency=9))
    assert read.pixels.shape[1] == 1 and read.alpha.tolist() == [[255, 0]]


def test_exif_orientation_is_applied_and_exif_is_dropped(tmp_path):
    array = picture(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"  # to be turned by 90 degrees clockwise; maker
    read = read_picture(saved(Image.fromarray(array), exif=exif))
    assert np.array_equal(read.pixels[0].permute(1, 2, 0).numpy(), np.rot90(array, -1))
    write_picture(read, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert dict(image.getexif()) == {} and set(image.info) == set()


def test_sixteen_bits_become_eight():
    values = np.array([[0, 128, 129, 257, 65535]], np.uint16)
    read = read_picture(saved(Image.fromarray(values)))
    assert read.pixels.flatten().tolist() == [0, 0, 1, 1, 255] and read.pixels.shape == (1, 1, 1, 5)
    with pytest.raises(UnreadablePicture, match="mode 'F' has more than 16 bits"):
        read_picture(saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


@pytest.mark.parametrize(("colour", "bands"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bits_of_colours_and_alpha_become_eight_and_it_is_said(colour, bands):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    values = (np.arange(2 * 3 * bands).reshape(2, 3 * bands) * 300).astype(">u2")  # Pillow writes no such file
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    content = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, colour, 0, 0, 0))
               + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    read = read_picture(io.BytesIO(content))
    assert read.note == "more than 8 bits brought to 8"
    assert read.pixels[0, 0, 0].tolist() == (values[0, ::bands] >> 8).tolist()  # cut off, by Pillow
    assert read_picture(saved(Image.fromarray(picture(2, 3, 3)))).note == ""


def test_sixteen_bits_of_other_formats_are_noted():
    values = np.arange(18, dtype=">u2").reshape(3, 2, 3) * 3000
    ppm = b"P6\n3 2\n65535\n" + values.transpose(1, 2, 0).tobytes()
    sgi = struct.pack(">hBBHHHHii4x80si", 474, 0, 2, 3, 3, 2, 3, 0, 65535, b"", 0) + bytes(404) + values.tobytes()
    for content in (ppm, sgi):
        assert read_picture(io.BytesIO(content)).note == "more than 8 bits brought to 8"
    for content in (b"P6\n3 2\n255\n" + bytes(18), b"P3\n1 1\n7\n1 2 3\n", b"P1\n2 2\n1 0 0 1\n", b"P4\n8 1\n\xaa"):
        assert read_picture(io.BytesIO(content)).note == ""


def test_sixteen_bits_of_a_whole_pixel_are_not_more_than_eight_of_a_channel():
    header = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    read = read_picture(io.BytesIO(header + b"\xff\x7f\0\0"))  # 5 bits per channel
    assert read.note == "" and read.pixels.flatten().tolist() == [255, 255, 255]


def test_the_transparent_value_of_sixteen_bits_becomes_alpha():
    values = np.array([[0, 65535, 1000, 1001]], np.uint16)
    read = read_picture(saved(Image.fromarray(values), transparency=1000))
    assert read.alpha.tolist() == [[255, 255, 0, 255]] and read.pixels.flatten().tolist() == [0, 255, 4, 4]


def test_cmyk_bilevel_and_colour_profiles():
    read = read_picture(saved(Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "TIFF"))
    assert read.pixels[0, :, 0, 0].tolist() == [255, 0, 0]
    assert read_picture(saved(Image.new("1", (3, 2), 1))).pixels.unique().tolist() == [255]
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_picture(saved(Image.new("RGB", (3, 2)), icc_profile=profile)).profile == profile
    press = b"\0" * 16 + b"CMYK" + b"\0" * 200  # no profile of the RGB pixels that it is turned into
    converted = read_picture(saved(Image.new("CMYK", (3, 2)), "TIFF", icc_profile=press))
    assert converted.profile is None and converted.note == "CMYK converted without its colour profile"


def test_the_first_frame_of_an_animation_is_taken_and_said_so():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    read = read_picture(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert read.note == "first of 3 frames" and read.pixels[0, :, 0, 0].tolist()[0] > 200


def test_what_cannot_be_read_says_why(tmp_path):
    whole = saved(Image.fromarray(picture(64, 64, 3)), "JPEG").getvalue()
    for content, message in ((b"text", "cannot identify"), (b"", "cannot identify"), (whole[:900], "truncated")):
        with pytest.raises(UnreadablePicture, match=message):
            read_picture(io.BytesIO(content))
    with pytest.raises(UnreadablePicture, match="64 x 64 pixels are more than the 4095 allowed"):
        read_picture(io.BytesIO(whole), 4095)
    bomb = saved(Image.new("1", (20_000, 20_000)))  # 400 million pixels in 50 kB
    assert len(bomb.getvalue()) < 100_000
    with pytest.raises(UnreadablePicture, match="400000000 pixels"):
        read_picture(bomb)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n"
    with pytest.raises(UnreadablePicture, match="cannot identify"):  # its reader would start Ghostscript
        read_picture(io.BytesIO(eps))


def test_a_file_of_no_known_format_is_named_and_not_a_python_object(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    for path, said in ((tmp_path / "a.png", f"image file {tmp_path / 'a.png'}: it is in no format"),
                       (io.BytesIO(b"text"), "image file: it is in no format")):
        with pytest.raises(UnreadablePicture) as caught:
            read_picture(path)
        assert said in str(caught.value) and "<_io" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # of pictures that we refuse
def test_our_limit_takes_the_place_of_pillows_while_a_picture_is_read(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    large = saved(Image.new("L", (60, 50), 7)).getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(io.BytesIO(large), 3000).pixels.shape == (1, 1, 50, 60)
    assert Image.MAX_IMAGE_PIXELS == 1000
    refused = {2999: "60 x 50 pixels are more than the 2999 allowed", 1200: "more than the 1200 pixels allowed"}
    for limit, message in refused.items():
        with pytest.raises(UnreadablePicture, match=message):
            read_picture(io.BytesIO(large), limit)
        assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # switched off by somebody
    assert read_picture(io.BytesIO(large), 3000).note == "" and Image.MAX_IMAGE_PIXELS is None


def test_readers_in_several_threads_leave_pillows_limit_as_it_was(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    together, decode, seen = Barrier(3), photos.eight_bits, []

    def decodes_together(image):
        together.wait(30)
        seen.append(Image.MAX_IMAGE_PIXELS)
        return decode(image)

    monkeypatch.setattr(photos, "eight_bits", decodes_together)
    large = saved(Image.new("L", (20, 20))).getvalue()
    with ThreadPoolExecutor(3) as pool:
        limits = [400, 500, 600] * 5
        assert all(pool.map(lambda limit: read_picture(io.BytesIO(large), limit).note == "", limits))
    assert len(seen) == 15 and min(seen) >= 400 and Image.MAX_IMAGE_PIXELS == 100


# ---- protecting


@pytest.mark.parametrize("own", [1, 3])
@pytest.mark.parametrize("height, width, channels", [(1, 1, 1), (1, 40, 3), (33, 7, 3), (28, 28, 1), (50, 90, 3)])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_any_size_and_channels_stay_within_the_budget(height, width, channels, own, norm):
    array = picture(height, width, channels).reshape(1, height, width, channels)
    pixels = torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
    alpha = torch.full((height, width), 7, dtype=torch.uint8)
    protected = protect_picture(photos.Picture(pixels, alpha, b"profile"), generator(own), 0.1, norm)
    assert protected.pixels.shape == pixels.shape and protected.alpha is alpha and protected.profile == b"profile"
    assert budget.perturbation_norm(pixels, protected.pixels, norm) <= 0.1 + 1e-6
    assert (protected.pixels != pixels).any() or height * width == 1


@pytest.mark.parametrize("full_resolution", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("height, width", [(37, 50), (160, 161), (200, 75)])
def test_tiles_give_the_pattern_of_the_whole_picture(height, width, channels, full_resolution):
    network = generator(channels)
    network.full_resolution = full_resolution
    pixels = torch.randint(0, 256, (1, channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(budget.to_float(pixels))
        tiled = picture_pattern(network, pixels, tile=16)
    assert whole.std() > 0.01
    assert torch.allclose(tiled, whole, atol=1e-5)
    with pytest.raises(ValueError, match="multiple of 16, got 24"):
        picture_pattern(network, pixels, tile=24)


@torch.no_grad()
def test_a_grey_generator_changes_the_luminance_of_a_colour_picture():
    network, pixels = generator(1), torch.from_numpy(picture(20, 24, 3)).permute(2, 0, 1)[None].contiguous()
    pattern = picture_pattern(network, pixels)
    x = budget.to_float(pixels)[0]
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    for channel in range(3):
        assert torch.allclose(pattern[:, channel], network(grey[None, None])[:, 0], atol=1e-6)


@torch.no_grad()
def test_a_colour_generator_treats_a_grey_picture_as_three_equal_channels():
    network, pixels = generator(3), torch.from_numpy(picture(20, 24, 1))[None, None]
    expected = network(budget.to_float(pixels).expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    assert torch.allclose(picture_pattern(network, pixels), expected, atol=1e-6)


@torch.no_grad()
def test_a_coarse_pattern_is_made_at_the_size_asked_for_and_enlarged():
    network, pixels = generator(1), torch.from_numpy(picture(64, 96, 1))[None, None]
    pattern = picture_pattern(network, pixels, pattern_size=16)
    assert pattern.shape == pixels.shape and pattern.abs().max() <= 1
    fine = picture_pattern(network, pixels)
    steps = [p.diff(dim=-1).abs().mean() / p.std() for p in (pattern, fine)]
    assert steps[0] < steps[1] / 2
    assert torch.equal(picture_pattern(network, pixels, pattern_size=64), fine)  # not larger: own size
    with pytest.raises(ValueError, match="pattern_size must be at least 1"):
        picture_pattern(network, pixels, pattern_size=0)


# ---- quality


@pytest.mark.parametrize("height", [7, 8, 20, 41])
def test_ssim_in_strips_is_ssim(height):
    clean = torch.randint(0, 256, (1, 3, height, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noisy = (clean.int() + torch.arange(30) - 15).clamp(0, 255).to(torch.uint8)
    assert photos.picture_ssim(clean, noisy, rows=5) == pytest.approx(float(quality.ssim(clean, noisy)), abs=1e-6)
    assert photos.picture_ssim(clean[..., :6], noisy[..., :6]) is None

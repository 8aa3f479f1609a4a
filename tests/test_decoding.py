"""pplkit.decoding: the same pixels whoever decodes them and wherever they are kept."""

import errno
import hashlib
import io
import os
import struct
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit import data, decoding
from pplkit.decoding import ImageFile, read_images
from pplkit.photos import read_picture


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    listed = []
    for label in ("cat", "dog"):
        for i in range(5):
            path = tmp_path / "photos" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (9 + i, 12, 3), dtype=np.uint8)).save(path)
            listed.append(ImageFile(f"{label}/{i}.png", path))
    return listed


def test_workers_and_cache_change_nothing(files, tmp_path):
    state = torch.random.get_rng_state()
    images, digests = read_images(files, (8, 6), 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert images.shape == (10, 3, 8, 6) and images.dtype == torch.uint8
    assert digests == [hashlib.sha256(file.path.read_bytes()).hexdigest() for file in files]
    for options in ({"workers": 2}, {"cache": tmp_path / "cache"}, {"cache": tmp_path / "cache"}):
        again, same = read_images(files, (8, 6), 3, **options)
        assert torch.equal(again, images) and same == digests, options


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_are_other_processes(files, monkeypatch, tmp_path, workers):
    decode = decoding.decode

    def leaves_a_trace(*arguments):
        (tmp_path / str(os.getpid())).touch()
        return decode(*arguments)

    monkeypatch.setattr(decoding, "decode", leaves_a_trace)
    monkeypatch.setattr(decoding, "BATCH", 2)  # so that each has something to do
    read_images(files, (8, 6), 3, workers=workers)
    found = {path.name for path in tmp_path.iterdir() if path.name.isdigit()}
    assert (found == {str(os.getpid())}) if workers == 0 else (len(found) == workers and str(os.getpid()) not in found)


def test_the_cache_is_used_and_not_believed_when_files_changed(files, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    images, _ = read_images(files, (8, 6), 3, cache=cache)
    decode, calls = decoding.decode, []
    monkeypatch.setattr(decoding, "decode", lambda *a: (calls.append(1), decode(*a))[1])
    mapped, _ = read_images(files, (8, 6), 3, cache=cache)
    assert calls == [] and torch.equal(mapped, images)
    mapped.zero_()  # stays in memory
    assert torch.equal(read_images(files, (8, 6), 3, cache=cache)[0], images)
    read_images(files, (8, 7), 3, cache=cache)
    assert len(calls) == 10
    time.sleep(0.01)
    Image.new("RGB", (12, 12), "red").save(files[3].path)
    changed = read_images(files, (8, 6), 3, cache=cache)[0].clone()
    assert len(calls) == 20 and changed[3, 0].eq(255).all() and torch.equal(changed[4], images[4])
    largest = max(cache.glob("*.uint8"), key=lambda path: path.stat().st_mtime_ns)
    largest.write_bytes(largest.read_bytes()[:100])  # cut off: decoded again
    assert torch.equal(read_images(files, (8, 6), 3, cache=cache)[0], changed)
    assert not list(cache.glob("*.partial"))


def test_the_caches_pixels_are_on_the_disk_before_their_note_and_another_pillow_decodes_anew(files, tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (order.append("fsync"), fsync(*a))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (order.append("replace"), replace(*a))[1])
    read_images(files, (8, 6), 3, cache=tmp_path / "cache")
    assert order == ["fsync", "replace"] * 2
    monkeypatch.setattr("PIL.__version__", "another")
    read_images(files, (8, 6), 3, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.uint8"))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="counts the open files of /proc")
def test_workers_hand_over_pictures_without_a_file_for_each(files, monkeypatch):
    fill, most = torch.Tensor.__setitem__, []

    def counted(*arguments):
        most.append(len(os.listdir("/proc/self/fd")))
        fill(*arguments)

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(torch.Tensor, "__setitem__", counted)
    read_images(files * 20, (8, 6), 3, workers=2)
    assert len(most) == 200 and max(most) < before + 60  # one for each of a batch would be 64 and more


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_and_leaves_no_cache(files, tmp_path, workers):
    files[7].path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"cannot read image .*dog/2\.png"):
        read_images(files, (8, 6), 3, cache=tmp_path / "cache", workers=workers)
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ValueError, match="workers must be a whole number"):
        read_images(files, (8, 6), 3, workers=-1)


def test_all_unreadable_images_are_named_up_to_ten(files, tmp_path):
    for file in files[6:8]:
        file.path.write_bytes(b"broken")
    with pytest.raises(ValueError) as caught:
        read_images(files, (8, 6), 3)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"cannot read image {file.path}" for file in files[6:8]]
    assert "in no format that is read here" in lines[0] and "<_io" not in str(caught.value)
    for file in files:
        file.path.write_bytes(b"broken")
    with pytest.raises(ValueError) as caught:
        read_images([*files, *files[:2]], (8, 6), 3)
    assert len(str(caught.value).splitlines()) == 11 and str(caught.value).endswith("\nand 2 more")


def test_sixteen_bit_grey_is_read_as_protect_reads_it(tmp_path):
    values = np.array([[0, 128], [129, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        images, _ = read_images([ImageFile(name, tmp_path / name)], (2, 2), 1)
        assert images.flatten().tolist() == [0, 0, 1, 255]
        assert torch.equal(images, read_picture(tmp_path / name).pixels)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="cannot read image .*b.tif: mode 'F' has more than 16 bits per pixel"):
        read_images([ImageFile("b.tif", tmp_path / "b.tif")], (2, 2), 1)


def test_no_file_starts_another_program(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n")
    with pytest.raises(ValueError, match="a.png: cannot identify image file: it is in no format"):
        read_images([ImageFile("a.png", tmp_path / "a.png")], (2, 2), 1)


def test_what_hides_in_another_format_starts_no_program_either(monkeypatch):
    """Pillow's reader of IPTC opens the picture inside, whatever its format."""
    def field(record: int, number: int, content: bytes) -> bytes:
        return bytes([0x1C, record, number]) + len(content).to_bytes(2, "big") + content

    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    content = b"".join([field(3, 60, b"\3\1"), field(3, 20, b"\0\x08"), field(3, 30, b"\0\x08"), field(3, 120, b"\5"),
                        field(8, 10, eps), b"\0" * 5])
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: (started.append(1), Image.new("RGB", (8, 8)).im)[1])
    for read in (lambda: decoding.decode("a.jpg", content, (8, 8), 3), lambda: read_picture(io.BytesIO(content))):
        with pytest.raises(ValueError, match="it is in no format that is read here"):
            read()
    assert started == []


def twelve_bit_tiff(values: list[int]) -> bytes:
    """One row of grey values, an even number of them, packed as 12 bits each."""
    strip = int("".join(f"{value:012b}" for value in values), 2).to_bytes(len(values) * 3 // 2, "big")
    tags = {256: len(values), 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(strip)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + strip


def test_twelve_bits_become_eight():
    read = read_picture(io.BytesIO(twelve_bit_tiff([0, 1024, 2048, 4095])))
    assert read.pixels.flatten().tolist() == [0, 64, 128, 255] and read.note == "more than 8 bits brought to 8"


def test_two_folders_of_equal_names_sizes_and_times_have_caches_of_their_own(tmp_path):
    files = []
    for folder, value in (("a", 10), ("b", 200)):
        path = tmp_path / folder / "1.bmp"
        path.parent.mkdir()
        Image.new("L", (4, 4), value).save(path)
        os.utime(path, (1e9, 1e9))
        files.append(ImageFile("cat/1.bmp", path))
    found = [int(read_images([file], (4, 4), 1, cache=tmp_path / "cache")[0].unique()) for file in files]
    assert found == [10, 200]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve space")
def test_a_full_disk_is_an_error_and_leaves_no_part_of_a_cache(files, tmp_path, monkeypatch):
    def full(descriptor, start, size):
        raise OSError(errno.ENOSPC, f"No space left on device for {size} bytes")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device for 480 bytes"):
        read_images(files, (8, 6), 1, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are Unicode")
def test_names_that_are_no_unicode_are_digested(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("L", (4, 4)).save(tmp_path / name)
    file = ImageFile(name, tmp_path / name)
    _, digests = read_images([file], (4, 4), 1, cache=tmp_path / "cache")
    assert decoding.files_digest([file], digests) != decoding.files_digest([ImageFile("cafe.png", file.path)], digests)


def test_suffixes_are_those_of_the_formats_that_are_read():
    assert {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tga", ".jp2"} <= decoding.suffixes()
    assert not {".eps", ".ps", ".h5", ".mpg", ".pdf"} & decoding.suffixes()
    assert (".avif" in decoding.suffixes()) is ("AVIF" in decoding.formats())


def test_a_folder_split_is_the_same_from_the_cache_and_its_parts_are_views(files, tmp_path):
    options = {"size": 8, "query_share": 0.3, "seed": 2}
    plain = data.load(f"folder:{tmp_path / 'photos'}", **options)
    cached = data.load(f"folder:{tmp_path / 'photos'}", **options, cache=tmp_path / "cache", workers=1)
    assert cached.manifest == plain.manifest
    for part in ("train", "query", "database"):
        assert torch.equal(getattr(cached, part).images, getattr(plain, part).images)
        assert torch.equal(getattr(cached, part).labels, getattr(plain, part).labels)
    storage = {part.images.untyped_storage().data_ptr() for part in (cached.query, cached.database)}
    assert len(storage) == 1  # one mapping, no copy

"""pplkit.data: `load` by name, with seeds, and folders of images."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pplkit.data import check_manifest, load, save_manifest


@pytest.mark.parametrize("name", ["mnist", "Fashion-MNIST", "", "folder", None, 3])
def test_unknown_dataset(name):
    with pytest.raises(ValueError) as caught:
        load(name)
    assert repr(name) in str(caught.value)
    for accepted in ("'fashion-mnist-mini'", "'fashion-mnist'", "'folder:PATH'"):
        assert accepted in str(caught.value)


def test_unknown_option(tmp_path):
    with pytest.raises(ValueError, match="option 'size' for dataset 'fashion-mnist-mini'; accepted: none"):
        load("fashion-mnist-mini", size=32)
    with pytest.raises(ValueError, match="'sizes' .*accepted: size, channels, query_share, train_share"):
        load(f"folder:{tmp_path}", sizes=32)


@pytest.mark.parametrize("name", ["fashion-mnist-mini", "fashion-mnist", "folder:photos"])
def test_empty_root_is_not_the_working_directory(name):
    with pytest.raises(ValueError, match="root must be a folder or None, got ''"):
        load(name, root="")


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "0", True, None])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="seed must be an int in"):
        load("fashion-mnist-mini", seed=seed)
    with pytest.raises(ValueError, match="seed must be an int in"):
        load("fashion-mnist-mini").validation(queries=2, seed=seed)


# ---- folders of images


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three classes of 10, 4 and 2 images of several sizes, modes and formats."""
    random = np.random.RandomState(0)
    kinds = [("RGB", "png"), ("L", "png"), ("RGBA", "png"), ("RGB", "JPG"), ("P", "gif")]
    for name, count in (("apple", 10), ("bee", 4), ("car", 2)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(random.randint(0, 256, (20 + number, 30, 3)).astype(np.uint8))
            mode, suffix = kinds[number % len(kinds)]
            image.convert(mode).save(tmp_path / "photos" / name / f"{number}.{suffix}")
    (tmp_path / "photos" / "apple" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "photos" / "bee" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "photos" / "LICENCE.txt").write_text("mine")
    return tmp_path / "photos"


def test_folder(photos):
    split = load(f"folder:{photos}", size=(16, 24), query_share=0.2, train_share=0.75)
    assert split.classes == ("apple", "bee", "car") and split.name == "folder:photos"
    assert split.query.labels.bincount().tolist() == [2, 1, 1]
    assert split.database.labels.bincount().tolist() == [8, 3, 1]
    assert split.train.labels.bincount().tolist() == [6, 2, 1]
    assert split.database.images.shape[1:] == (3, 16, 24)
    union = torch.cat([split.query_index, split.database_index]).sort().values
    assert union.tolist() == list(range(16))
    again = load("folder:photos", root=photos.parent, size=(16, 24), query_share=0.2, train_share=0.75)
    assert again.manifest == split.manifest and torch.equal(again.query.images, split.query.images)
    other = load(f"folder:{photos}", size=(16, 24), query_share=0.2, train_share=0.75, seed=1)
    assert other.manifest["sha256"] != split.manifest["sha256"]
    small = split.validation(queries=1, seed=3)
    assert len(small.query) == 1 and len(small.database) == 11


def test_folder_pixels_and_order(tmp_path):
    for name, value in (("b", 200), ("a", 100)):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("L", (8, 8), value + number).save(tmp_path / name / f"{number}.png")
    split = load(f"folder:{tmp_path}", size=8, channels=1)
    assert split.classes == ("a", "b") and split.database.images.shape == (2, 1, 8, 8)
    values = torch.cat([split.query.images, split.database.images])[:, 0, 0, 0]
    labels = torch.cat([split.query.labels, split.database.labels])
    pairs = sorted(zip(labels.tolist(), values.tolist(), strict=True))
    assert pairs == [(0, 100), (0, 101), (1, 200), (1, 201)]


def test_folder_manifest_notices_a_changed_image(photos, tmp_path):
    save_manifest(load(f"folder:{photos}"), tmp_path / "manifest.json")
    Image.new("RGB", (9, 9)).save(photos / "apple" / "0.png")
    with pytest.raises(ValueError, match="source.files: file has '[0-9a-f]{64}', split has '[0-9a-f]{64}'"):
        check_manifest(load(f"folder:{photos}"), tmp_path / "manifest.json")


def test_folder_turns_photos_upright(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            image = Image.new("L", (8, 8))
            image.paste(255, (0, 0, 8, 4))  # the upper half is white
            exif = image.getexif()
            exif[0x0112] = 3  # stored upside down
            image.save(tmp_path / name / f"{number}.png", exif=exif)
    images = load(f"folder:{tmp_path}", size=8, channels=1).database.images
    assert int(images[:, :, :4].max()) == 0 and int(images[:, :, 4:].min()) == 255


def test_folder_unreadable_images_are_named(photos):
    good = (photos / "bee" / "0.png").read_bytes()
    for content in (b"no image", good[: len(good) // 2], b""):
        (photos / "bee" / "0.png").write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot read image {photos / 'bee' / '0.png'}"):
            load(f"folder:{photos}")


def test_folder_images_of_16_bits_are_reduced_and_of_unknown_range_refused(photos):
    file = photos / "car" / "0.png"
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(file)
    split = load(f"folder:{photos}", channels=1)
    images = torch.cat([split.database.images, split.query.images])
    assert round(40_000 / 257) in images.flatten(1).float().mean(1).tolist()
    file.unlink()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(file.with_suffix(".tif"))
    with pytest.raises(ValueError, match="cannot read image .*car/0.tif: mode 'F' has more than 16 bits"):
        load(f"folder:{photos}")


def test_folder_structure_errors(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*absent; 'folder:PATH' needs"):
        load(f"folder:{tmp_path / 'absent'}")
    with pytest.raises(ValueError, match="LICENCE.txt is not a folder"):
        load(f"folder:{photos / 'LICENCE.txt'}")
    with pytest.raises(ValueError, match="'folder:' needs a path"):
        load("folder:")
    with pytest.raises(ValueError, match="is an image outside the class folders"):
        load(f"folder:{photos / 'apple'}")
    (photos / "car" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="notes.txt is no image file .*; move it elsewhere"):
        load(f"folder:{photos}")
    (photos / "car" / "notes.txt").unlink()
    (photos / "car" / "1.png").unlink()
    with pytest.raises(ValueError, match="car needs at least 2 images .*, found 1"):
        load(f"folder:{photos}")
    shutil.rmtree(photos / "car")
    shutil.rmtree(photos / "bee")
    with pytest.raises(ValueError, match=r"at least 2 class folders, found \['apple'\]"):
        load(f"folder:{photos}")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("size", 0), ("size", "32"), ("size", (8, 8, 3)), ("size", (8, 2.5)), ("size", True), ("size", 5000),
        ("channels", 2), ("channels", "3"), ("channels", True),
        ("query_share", 0), ("query_share", 1.0), ("query_share", -0.1), ("query_share", "0.1"),
        ("query_share", float("nan")),
        ("train_share", 0.0), ("train_share", 1.5), ("train_share", None),
    ],
)  # fmt: skip
def test_folder_bad_options(photos, option, value):
    with pytest.raises(ValueError) as caught:
        load(f"folder:{photos}", **{option: value})
    assert option in str(caught.value) and repr(value) in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 9), min_size=2, max_size=4),
    query_share=st.floats(0.01, 0.99),
    train_share=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_folder_split_keeps_every_class_in_every_part(sizes, query_share, train_share, seed):
    with tempfile.TemporaryDirectory() as folder:
        for label, size in enumerate(sizes):
            (Path(folder) / str(label)).mkdir()
            for number in range(size):
                image = b"P5 2 2 255\n" + bytes([label, number] * 2)
                (Path(folder) / str(label) / f"{number}.pgm").write_bytes(image)
        options = {"size": 2, "channels": 1, "query_share": query_share, "train_share": train_share}
        split = load(f"folder:{folder}", seed=seed, **options)
    for part in (split.train, split.query, split.database):
        assert int(part.labels.bincount(minlength=len(sizes)).min()) >= 1
    counts = split.query.labels.bincount() + split.database.labels.bincount()
    assert counts.tolist() == sizes

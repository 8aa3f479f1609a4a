"""pplkit.data: what is loaded, from where, how it is split, and what bad input gets."""

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import make_mini
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pplkit import data, sources, splits
from pplkit.data import ImageSet, RetrievalSplit, check_manifest, embedded, load, save_manifest

TREE = Path(data.__file__).parents[1]
needs_fashion_mnist = pytest.mark.skipif(
    not sources.DEBIAN_FOLDER.is_dir(),
    reason=f"full Fashion-MNIST is not in {sources.DEBIAN_FOLDER} (Debian's package dataset-fashion-mnist)",
)


def image_set(count: int, classes: int = 2, size: int = 4, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, size, size), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % classes)


def hand_split(**changes) -> RetrievalSplit:
    database, index = image_set(12), torch.tensor([0, 3, 5, 8, 10, 11])
    parts = {
        "name": "hand",
        "classes": ("even", "odd"),
        "train": database.subset(index),
        "query": image_set(4, seed=1),
        "database": database,
        "train_index": index,
        "manifest": {"dataset": "hand"},
    }
    return RetrievalSplit(**(parts | changes))


# ---- ImageSet and RetrievalSplit


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2).long(), "torch.uint8 tensor .* got torch.float32"),
        (np.zeros((2, 1, 4, 4), np.uint8), torch.zeros(2).long(), "got a ndarray"),
        (torch.zeros(2, 4, 4).byte(), torch.zeros(2).long(), r"\(N, C, H, W\).* got \(2, 4, 4\)"),
        (torch.zeros(0, 1, 4, 4).byte(), torch.zeros(0).long(), r"got \(0, 1, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2), "torch.int64 tensor, got torch.float32"),
        (torch.zeros(2, 1, 4, 4).byte(), [0, 0], "torch.int64 tensor, got a list"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(3).long(), r"shape \(2,\).* got \(3,\)"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2, 1).long(), r"got \(2, 1\)"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.tensor([0, -1]), ">= 0, got -1"),
    ],
)
def test_image_set_refuses(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels)


def test_image_set_subset_keeps_order_and_checks_the_index():
    images = image_set(5)
    chosen = images.subset(torch.tensor([4, 0]))
    assert len(chosen) == 2 and torch.equal(chosen.images[0], images.images[4])
    assert chosen.labels.tolist() == [0, 0]
    assert torch.equal(images.to("cpu").images, images.images)
    assert repr(images) == "ImageSet(5 images 1x4x4, 2 classes)"
    for index in (torch.tensor([], dtype=torch.int64), torch.tensor([0.0]), torch.tensor([[0]])):
        with pytest.raises(ValueError, match="index must be int64"):
            images.subset(index)
    for index in (torch.tensor([-1]), torch.tensor([5])):
        with pytest.raises(ValueError, match=r"in 0\.\.4, got"):
            images.subset(index)


def test_split_fills_in_source_positions():
    split = hand_split()
    assert split.database_index.tolist() == list(range(12))
    assert split.query_index.tolist() == [12, 13, 14, 15]
    assert repr(split) == "RetrievalSplit('hand': train 6, query 4, database 12; images 1x4x4, 2 classes)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_index": torch.tensor([0, 3, 5, 8, 10, 9])}, "train must equal database.subset"),
        ({"train_index": torch.tensor([0, 3, 5, 8, 10, 10])}, "train_index must hold"),
        ({"train_index": torch.tensor([0, 3, 5, 8, 10, -1])}, "distinct positions >= 0"),
        ({"train_index": torch.tensor([0, 3, 5, 8, 10, 12])}, r"in 0\.\.11, got 0\.\.12"),
        ({"train_index": torch.tensor([0, 3])}, r"train_index must be int64 of shape \(6,\)"),
        ({"train_index": torch.tensor([0.0] * 6)}, "train_index must be int64 .* got torch.float32"),
        ({"query": image_set(4, size=5)}, r"have shape \(1, 5, 5\), database images \(1, 4, 4\)"),
        ({"query": image_set(4, classes=4)}, "query has label 3, but only 2 classes"),
        ({"query_index": torch.tensor([20, 21, 7, 22])}, "must be disjoint, .* first is number 7"),
        ({"query_index": torch.tensor([20, 21])}, r"query_index must be int64 of shape \(4,\)"),
    ],
)
def test_split_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        hand_split(**changes)


# ---- the embedded sample


def test_mini_is_as_promised():
    split = load("fashion-mnist-mini")
    assert (len(split.train), len(split.query), len(split.database)) == (4000, 1000, 10_000)
    for part, count in ((split.train, 400), (split.query, 100), (split.database, 1000)):
        assert part.images.shape[1:] == (1, 28, 28)
        assert part.labels.bincount().tolist() == [count] * 10
    assert split.classes[0] == "T-shirt/top" and split.classes[9] == "Ankle boot" and len(split.classes) == 10
    assert torch.equal(split.database.images[split.train_index], split.train.images)
    assert int(split.database_index.max()) < 60_000 <= int(split.query_index.min())  # train part, test part
    assert (TREE / "data" / data.MINI_FILE).stat().st_size < 6_000_000


def test_mini_manifest_is_pinned():
    manifest = load("fashion-mnist-mini").manifest
    assert manifest == json.loads(json.dumps(manifest))
    assert manifest["counts"] == {"train": 4000, "query": 1000, "database": 10_000}
    assert manifest["sha256"] == {
        "train": "86318a6f66a92bc5d18fa34ceab0dcef4b854ea1c3c88264d461f986f1831c99",
        "query": "dd1766eaa2638b96fc11a939a62c1934ab858a2d834286e32eced2b0753f4b09",
        "database": "b62f1359020fad944f6a9d535dd13adf81ace5618a668e787dbe9cd5e235d452",
    }


def test_mini_seed_moves_only_the_train_part():
    first, second = load("fashion-mnist-mini"), load("fashion-mnist-mini", seed=1)
    assert not torch.equal(first.train_index, second.train_index)
    assert first.manifest["sha256"]["query"] == second.manifest["sha256"]["query"]
    assert second.train.labels.bincount().tolist() == [400] * 10


def test_mini_survives_a_caller_who_writes_into_it():
    split = load("fashion-mnist-mini")
    split.database.images.zero_()
    assert int(load("fashion-mnist-mini").database.images.max()) == 255


def test_mini_loads_from_any_working_directory(tmp_path, monkeypatch):
    sources.read_mini.cache_clear()
    monkeypatch.chdir(tmp_path)
    assert len(load("fashion-mnist-mini").database) == 10_000


def test_mini_damaged_is_refused(tmp_path, monkeypatch):
    (tmp_path / "pplkit" / "_data").mkdir(parents=True)
    copy = tmp_path / "pplkit" / "_data" / data.MINI_FILE
    content = bytearray((TREE / "data" / data.MINI_FILE).read_bytes())
    monkeypatch.setattr(data, "files", lambda package: tmp_path / package)
    content[1_000_000] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ValueError, match=f"damaged: expected sha256 {data.MINI_SHA256}; found"):
        load("fashion-mnist-mini")
    copy.write_bytes(content[:1000])
    with pytest.raises(ValueError, match="1000 bytes"):
        load("fashion-mnist-mini")
    copy.unlink()
    with pytest.raises(FileNotFoundError, match="this copy of pplkit is incomplete"):
        load("fashion-mnist-mini")


def test_readme_and_package_agree_on_checksums():
    readme = (TREE / "data" / "README.md").read_text(encoding="utf-8")
    stored = hashlib.sha256((TREE / "data" / data.MINI_FILE).read_bytes()).hexdigest()
    assert stored == data.MINI_SHA256
    assert f"{stored}  {data.MINI_FILE}" in readme
    for name, (_, sha256) in sources.FASHION_MNIST_FILES.items():
        assert f"{sha256}  {name}" in readme


@needs_fashion_mnist
def test_mini_is_what_its_script_draws(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_mini.py", "--check", "--root", str(sources.DEBIAN_FOLDER)])
    assert make_mini.main() == 0
    assert "equals a fresh draw" in capsys.readouterr().out


# ---- embedded files


def test_embedded_prefers_the_tree_and_else_the_package(tmp_path, monkeypatch):
    assert embedded() == TREE / "data"
    package = tmp_path / "site-packages" / "pplkit"
    (package / "_data" / "results").mkdir(parents=True)
    (package / "_data" / "results" / "a.json").write_text("{}")
    (tmp_path / "site-packages" / "data").mkdir()  # somebody else's package, not ours
    monkeypatch.setattr(data, "files", lambda _: package)
    assert embedded("results", "a.json") == package / "_data" / "results" / "a.json"


@pytest.mark.parametrize("parts", [("..", "pyproject.toml"), ("/etc/passwd",), ("results/../../x",)])
def test_embedded_stays_inside(parts):
    with pytest.raises(ValueError, match="plain path parts"):
        embedded(*parts)


def test_embedded_names_what_is_missing():
    with pytest.raises(FileNotFoundError, match=r"nothing\.json is not there"):
        embedded("results", "nothing.json")


def test_wheel_carries_the_sample(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "LICENSE", "README.md", "pplkit", "data"):
        source = TREE / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, tree)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    (wheel,) = (tree / "dist").glob("*.whl")
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from pplkit import data\n"
        "print(data.embedded('README.md'), len(data.load('fashion-mnist-mini').database))"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=elsewhere, text=True)
    assert printed.split() == [str(installed / "pplkit" / "_data" / "README.md"), "10000"]


# ---- Fashion-MNIST's files


def write_idx(path: Path, array: np.ndarray) -> bytes:
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return content


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Make the reader expect a Fashion-MNIST of 40 + 10 images, found nowhere yet; gives what writes it."""
    random = np.random.RandomState(0)
    arrays = {
        "train-images-idx3-ubyte": random.randint(0, 256, (40, 28, 28)).astype(np.uint8),
        "train-labels-idx1-ubyte": (np.arange(40) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": random.randint(0, 256, (10, 28, 28)).astype(np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(10).astype(np.uint8),
    }

    def write(folder: Path, suffix: str = ".gz") -> Path:
        for name, array in arrays.items():
            write_idx(folder / f"{name}{suffix}", array)
        return folder

    expected = {
        name: (array.shape, hashlib.sha256(write_idx(tmp_path / "whole" / name, array)).hexdigest())
        for name, array in arrays.items()
    }
    monkeypatch.setattr(sources, "FASHION_MNIST_FILES", expected)
    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(data, "PAPER_TRAIN", 15)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PPLKIT_DATA", raising=False)
    return write


@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_fashion_mnist_from_root(small, tmp_path, below, suffix):
    small(tmp_path / "root" / below, suffix)
    split = load("fashion-mnist", root=tmp_path / "root")
    assert (len(split.train), len(split.query), len(split.database)) == (15, 10, 40)
    assert split.database.labels.tolist() == list(range(10)) * 4
    assert split.query_index.tolist() == list(range(40, 50))
    assert len(split.train_index.unique()) == 15


def test_fashion_mnist_places_in_their_order(small, tmp_path, monkeypatch):
    for place in ("mine", "debian", "cache/pplkit"):
        small(tmp_path / place)
    monkeypatch.setenv("PPLKIT_DATA", str(tmp_path / "mine"))
    opened = []
    read = sources.read_idx

    def spy(path, *more):
        opened.append(path.parent)
        return read(path, *more)

    monkeypatch.setattr(sources, "read_idx", spy)
    for place in ("mine", "debian", "cache/pplkit"):
        opened.clear()
        load("fashion-mnist")
        assert set(opened) == {tmp_path / place}
        shutil.rmtree(tmp_path / place)


def test_fashion_mnist_absent_lists_places_and_ways(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PPLKIT_DATA", str(tmp_path / "mine"))
    small(tmp_path / "mine")
    (tmp_path / "mine" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load("fashion-mnist")
    text = str(caught.value)
    for place in ("mine", "debian", "cache/pplkit/FashionMNIST/raw"):
        assert f"{tmp_path / place}" in text
    assert "without t10k-labels-idx1-ubyte" in text
    for way in ("apt install dataset-fashion-mnist", "download=True", "PPLKIT_DATA=FOLDER", "root=FOLDER"):
        assert way in text


def test_fashion_mnist_root_is_the_only_place(small, tmp_path):
    small(tmp_path / "debian")
    with pytest.raises(FileNotFoundError, match="root is given, so nowhere else"):
        load("fashion-mnist", root=tmp_path / "empty")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-100], "t10k-images-idx3-ubyte.gz is truncated .*10, 28, 28.*found"),
        (lambda content: content[:50] + b"\xff\xff\xff" + content[53:], "t10k-images-idx3-ubyte.gz is trunc"),
        (lambda content: content[:-8] + b"\0" * 4 + content[-4:], "truncated or damaged: .*CRC"),
        (lambda content: b"not gzip", "truncated or damaged: .*gzip"),
        (lambda content: b"", "wrong header: expected 00000803 .* an empty file"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1]), "wrong size: .* only 7855 bytes"),
        (lambda content: gzip.compress(gzip.decompress(content) + b"\0"), "wrong size: .*more than 7856 "),
        (lambda content: gzip.compress(bytes(10**7)), "wrong header: .* found 00000000"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1] + b"\0"), "wrong content: exp"),
    ],
)
def test_fashion_mnist_damaged(small, tmp_path, damage, message):
    path = small(tmp_path / "debian") / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    small(tmp_path / "cache/pplkit")  # a whole copy elsewhere is no excuse
    with pytest.raises(ValueError, match=message):
        load("fashion-mnist")


def test_read_idx_without_checksum_checks_header_and_size(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "plain", array)
    assert np.array_equal(sources.read_idx(tmp_path / "plain", (2, 3, 4)), array)
    with pytest.raises(ValueError, match="wrong header"):
        sources.read_idx(tmp_path / "plain", (4, 3, 2))


def fake_download(small, suffix="", error=None):
    def fashion_mnist(root, download):
        assert download
        folder = small(Path(root) / "FashionMNIST" / "raw", suffix)
        if error:
            (folder / "t10k-labels-idx1-ubyte").unlink()
            raise error

    return fashion_mnist


def test_download_moves_whole_files_into_place(small, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fake_download(small))
    split = load("fashion-mnist", root=tmp_path / "new", download=True)
    assert len(split.database) == 40
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["FashionMNIST"]
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", None)  # a second call does not download
    assert load("fashion-mnist", root=tmp_path / "new", download=True).manifest == split.manifest
    assert load("fashion-mnist", root=tmp_path / "new").manifest == split.manifest


def test_download_goes_to_the_cache_without_root(small, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fake_download(small))
    load("fashion-mnist", download=True)
    assert (tmp_path / "cache/pplkit/FashionMNIST/raw/t10k-labels-idx1-ubyte").is_file()


@pytest.mark.parametrize("error", [RuntimeError("Error downloading t10k"), OSError("no route")])
def test_download_that_fails_leaves_nothing(small, tmp_path, monkeypatch, error):
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fake_download(small, error=error))
    with pytest.raises(FileNotFoundError, match=f"download .* failed: {error}(.|\n)*Three ways"):
        load("fashion-mnist", root=tmp_path / "new", download=True)
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_download_root_that_is_a_file(small, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match="download of fashion-mnist failed"):
        load("fashion-mnist", root=tmp_path / "file", download=True)


@needs_fashion_mnist
def test_fashion_mnist_follows_the_paper(monkeypatch):
    monkeypatch.delenv("PPLKIT_DATA", raising=False)
    split = load("fashion-mnist")
    assert split.manifest["counts"] == {"train": 10_000, "query": 10_000, "database": 60_000}
    assert split.manifest["sha256"] == {
        "train": "8d84fa8d3e0cad8fb177217eaf0b5144ec99bd1939479b18d9ebcd670bcb1082",
        "query": "8d294bd1e8418920e271507fe5b110dc9deacddb90288cce9321abc0d3db7338",
        "database": "fe4e39bbf5e7508e2743343e541d967d3a36c5d8560d34e7e1d41073ece735ba",
    }
    mini = load("fashion-mnist-mini")
    assert torch.equal(split.database.images[mini.database_index], mini.database.images)
    assert torch.equal(split.query.labels[mini.query_index - 60_000], mini.query.labels)


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


def test_folder_16_bit_images_are_refused(photos):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(photos / "car" / "0.png")
    with pytest.raises(ValueError, match="cannot read image .*car/0.png: mode 'I;16' has more than 8 bits"):
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


# ---- load, seeds, manifests, validation


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
        hand_split().validation(queries=2, seed=seed)


def test_manifest_round_trip_and_differences(tmp_path):
    split = load("fashion-mnist-mini")
    save_manifest(split, tmp_path / "below" / "manifest.json")
    check_manifest(split, tmp_path / "below" / "manifest.json")
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["manifest.json"]
    with pytest.raises(ValueError) as caught:
        check_manifest(load("fashion-mnist-mini", seed=1), tmp_path / "below" / "manifest.json")
    text = str(caught.value)
    assert "seed: file has 0, split has 1" in text and "sha256.train: file has '86318a6f" in text
    assert "counts" not in text and "sha256.query" not in text
    with pytest.raises(ValueError, match="counts.train: file has 4000, split has 3000"):
        check_manifest(split.validation(), tmp_path / "below" / "manifest.json")


def test_manifest_file_errors(tmp_path):
    split = hand_split()
    with pytest.raises(FileNotFoundError, match="absent.json; write one with save_manifest"):
        check_manifest(split, tmp_path / "absent.json")
    cases = (("{", "is not a manifest"), ("[]", r"content: file has \[\]"), ("{}", "dataset: file has"))
    for content, message in cases:
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            check_manifest(split, tmp_path / "manifest.json")


def test_manifest_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "manifest.json"
    save_manifest(hand_split(), path)
    with pytest.raises((TypeError, ValueError)):
        save_manifest(hand_split(manifest={"dataset": object()}), path)
    check_manifest(hand_split(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_validation_takes_queries_out_of_train_and_database():
    split = load("fashion-mnist-mini")
    tuning = split.validation(queries=500, seed=5)
    assert tuning.name == "fashion-mnist-mini/validation"
    assert (len(tuning.train), len(tuning.query), len(tuning.database)) == (3500, 500, 9500)
    assert tuning.query.labels.bincount().tolist() == [50] * 10
    assert set(tuning.query_index.tolist()) <= set(split.database_index[split.train_index].tolist())
    assert not torch.isin(tuning.query_index, split.query_index).any()
    merged = torch.cat([tuning.query_index, tuning.database_index]).sort().values
    assert torch.equal(merged, split.database_index)
    position = {source: row for row, source in enumerate(split.database_index.tolist())}
    rows = torch.tensor([position[source] for source in tuning.query_index.tolist()])
    assert torch.equal(split.database.images[rows], tuning.query.images)
    assert tuning.manifest["source"] == split.manifest and tuning.manifest["seed"] == 5
    assert split.validation(queries=500, seed=5).manifest == tuning.manifest
    assert split.validation(queries=500, seed=6).manifest != tuning.manifest


@pytest.mark.parametrize("queries", [0, -1, 2.5, True, "10"])
def test_validation_bad_count(queries):
    with pytest.raises(ValueError, match="queries must be an int >= 1, got"):
        hand_split().validation(queries=queries)


def test_validation_needs_images_of_each_class():
    with pytest.raises(ValueError, match="6 validation queries take 3 of class 'even', but train has 3"):
        hand_split().validation(queries=6)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(6, 60),
    classes=st.integers(1, 4),
    share=st.floats(0.3, 1),
    queries=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_validation_of_any_split_is_balanced_or_refused(count, classes, share, queries, seed):
    database = image_set(count, classes, size=1)
    index = splits.draw(count, max(1, int(share * count)), seed)
    split = RetrievalSplit(
        "any", tuple("abcd"), database.subset(index), image_set(2, size=1), database, index, {}
    )
    have = split.train.labels.bincount()
    try:
        tuning = split.validation(queries, seed)
    except ValueError as error:
        assert "ask for fewer queries" in str(error)
        assert int(have[have > 0].min()) <= -(-queries // int((have > 0).sum()))
        return
    taken = tuning.query.labels.bincount(minlength=4)[: len(have)][have > 0]
    assert len(tuning.query) == queries and int(taken.max() - taken.min()) <= 1
    assert len(tuning.train) == len(split.train) - queries
    assert len(tuning.database) == count - queries


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

"""pplkit.sources and the embedded sample: which files are read, from where, and what damaged ones get."""

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import make_mini
import numpy as np
import pytest
import torch

from pplkit import data, sources
from pplkit.data import embedded, load

TREE = Path(data.__file__).parents[1]
needs_fashion_mnist = pytest.mark.skipif(
    not sources.DEBIAN_FOLDER.is_dir(),
    reason=f"full Fashion-MNIST is not in {sources.DEBIAN_FOLDER} (Debian's package dataset-fashion-mnist)",
)


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


def test_list_folder_takes_what_pillow_reads_and_names_all_else(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for name in ("a.PNG", "b.webp", "c.tga", "d.jp2"):
            (tmp_path / label / name).write_bytes(b"its content is looked at later")
    assert [file.name for file in sources.list_folder(tmp_path)[1]] == ["a.PNG", "b.webp", "c.tga", "d.jp2"] * 2
    for label in ("cat", "dog"):
        for i in range(6):
            (tmp_path / label / f"{i}.txt").write_text("x")
    with pytest.raises(ValueError) as caught:
        sources.list_folder(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 11 and lines[-1] == "and 2 more"
    assert lines[0].startswith(f"{tmp_path / 'cat' / '0.txt'} is no image file (") and "dog" in lines[6]
    (tmp_path / "outside.tga").write_bytes(b"x")
    with pytest.raises(ValueError, match="outside.tga is an image outside the class folders"):
        sources.list_folder(tmp_path)

"""pplkit.colour_sources: CIFAR-10 and ImageNet's classes in each of their forms, and what damaged or hostile files get."""

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit import colour_sources, data
from pplkit.colour_sources import CIFAR10_CLASSES, IMAGENET13_CLASSES, cifar10_keys
from pplkit.config import PAPER
from pplkit.data import load
from pplkit.paper import table1

COUNTS = {"train": 12, "test": 6}
CLASSES = tuple(IMAGENET13_CLASSES)[:3]


# ---- CIFAR-10, 12 + 6 images


@pytest.fixture
def cifar10(monkeypatch, tmp_path):
    """Tiny parts in tile order, the package told that they are CIFAR-10."""
    random = np.random.default_rng(0)
    parts = {part: (random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), np.arange(count) % 10)
             for part, count in COUNTS.items()}
    checksums = {part: hashlib.sha256(b"".join(sorted(cifar10_keys(*arrays)))).hexdigest() for part, arrays in parts.items()}
    monkeypatch.setattr(colour_sources, "CIFAR10_COUNTS", COUNTS)
    monkeypatch.setattr(colour_sources, "CIFAR10_SHA256", checksums)
    monkeypatch.setattr(colour_sources, "MOSAIC", (2, 3))
    monkeypatch.delenv("PPLKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    return parts


def write_mosaics(folder: Path, parts: dict, **changes) -> Path:
    folder.mkdir(parents=True)
    for part, (images, _) in parts.items():
        for number, tiles in enumerate(np.split(images, len(images) // 6)):
            grid = tiles.reshape(2, 3, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(64, 96, 3)
            Image.fromarray(grid).save(folder / f"{part}_{number:02d}.webp", lossless=True)
    labels = {f"y_{part}": labels.astype(np.uint8) for part, (_, labels) in parts.items()}
    np.savez(folder / "labels.npz", **(labels | changes))
    return folder


def write_batches(folder: Path, parts: dict, monkeypatch) -> Path:
    """torchvision's form, with its checksums set to these files'; images in another order than the mosaics'."""
    from torchvision.datasets import CIFAR10

    target = folder / "cifar-10-batches-py"
    target.mkdir(parents=True)
    order = np.random.default_rng(1).permutation(12)
    images, labels = parts["train"][0][order], parts["train"][1][order]
    contents = {"data_batch_1": (images[:5], labels[:5]), "data_batch_2": (images[5:], labels[5:]), "test_batch": parts["test"]}
    md5 = {}
    for name, (batch, own) in contents.items():
        content = pickle.dumps({"data": batch.reshape(len(batch), -1), "labels": own.tolist()})
        (target / name).write_bytes(content)
        md5[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": list(CIFAR10_CLASSES)})
    (target / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": hashlib.md5(meta).hexdigest()})
    return folder


SMALL = {"query": 3, "train": 7}


def test_mosaics_and_torchvisions_files_give_one_split(cifar10, tmp_path, monkeypatch):
    splits = [load("cifar10", write_mosaics(tmp_path / "m", cifar10), **SMALL),
              load("cifar10", write_batches(tmp_path / "b", cifar10, monkeypatch), **SMALL)]
    for split in splits:
        assert (len(split.database), len(split.query), len(split.train)) == (15, 3, 7)
        assert split.classes == CIFAR10_CLASSES and split.database.images.shape[1:] == (3, 32, 32)
    assert splits[0].manifest == splits[1].manifest
    for part in ("database", "query", "train"):
        assert torch.equal(getattr(splits[0], part).images, getattr(splits[1], part).images)
    everything = np.concatenate([cifar10["train"][0], cifar10["test"][0]])
    labels = np.concatenate([cifar10["train"][1], cifar10["test"][1]])
    for part in (splits[0].database, splits[0].query):  # every image kept its label
        for image, label in zip(part.images.numpy(), part.labels.tolist(), strict=True):
            row, = np.flatnonzero((everything == image).all((1, 2, 3)))
            assert labels[row] == label


def test_the_seed_moves_the_training_images_only(cifar10, tmp_path):
    root = write_mosaics(tmp_path / "root" / "cifar10", cifar10).parent
    first, second = (load("cifar10", root, seed=seed, **SMALL) for seed in (0, 1))
    assert first.manifest["sha256"]["query"] == second.manifest["sha256"]["query"]
    assert not torch.equal(first.train_index, second.train_index)
    smaller = load("cifar10", root, database=9, query=3, train=4)
    assert len(smaller.database) == 9 and torch.equal(smaller.query.images, first.query.images)
    for wrong in ({"query": 0}, {"train": True}, {"database": 2.5}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number"):
            load("cifar10", root, **wrong)
    with pytest.raises(ValueError, match="cannot draw 16 of 15"):
        load("cifar10", root, query=3, train=16)


def test_the_papers_sizes_are_the_defaults():
    assert data._load_cifar10.__kwdefaults__ == {"query": 1000, "database": None, "train": 10_000}
    assert data.PAPER_IMAGENET13_DATABASE == 13 * 1300 and set(PAPER) == {key[0] for key in table1()}


def test_places_are_listed_when_it_is_nowhere(cifar10, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as caught:
        load("cifar10", tmp_path)
    said = str(caught.value)
    assert f"{tmp_path} (for cifar-10-batches-py" in said and f"{tmp_path / 'cifar10'} (" in said and "root is given" in said
    assert "download=True" in said
    monkeypatch.setenv("PPLKIT_DATA", str(tmp_path / "mine"))
    with pytest.raises(FileNotFoundError, match="mine"):
        load("cifar10")
    write_mosaics(tmp_path / "mine" / "cifar10", cifar10)
    assert len(load("cifar10", **SMALL).query) == 3


def test_a_download_lands_in_root_or_says_why_not(cifar10, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    ready = write_batches(tmp_path / "ready", cifar10, monkeypatch)

    def copy(self) -> None:
        os.makedirs(self.root, exist_ok=True)
        os.rename(ready / "cifar-10-batches-py", Path(self.root) / "cifar-10-batches-py")

    monkeypatch.setattr(CIFAR10, "download", copy)
    assert len(load("cifar10", tmp_path / "root", download=True, **SMALL).database) == 15
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["cifar-10-batches-py"]

    def fail(self) -> None:
        raise OSError("no network")

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(FileNotFoundError, match="download of cifar10 failed: no network"):
        load("cifar10", tmp_path / "other", download=True, **SMALL)


@pytest.mark.parametrize("damage, message", [
    ("pixel", "does not hold CIFAR-10's train part: expected sha256"),
    ("label", "does not hold CIFAR-10's test part"),
    ("missing", "train_01.webp is missing: train has 2 mosaics"),
    ("size", "must be 96 x 64 pixels, found 64 x 64"),
    ("cut", "cannot read mosaic .*train_00"),
    ("shape", r"y_test must have shape \(6,\), found \(5,\)"),
    ("labels cut", "labels.npz is no archive of plain arrays, or damaged"),
    ("labels empty", "labels.npz is no archive of plain arrays, or damaged"),
    ("labels bit", "labels.npz is no archive of plain arrays, or damaged"),
    ("one array", "labels.npz is no archive of plain arrays, or damaged"),
])
def test_damaged_mosaics_are_refused(cifar10, tmp_path, damage, message):
    if damage == "pixel":
        cifar10["train"][0][3, 0, 0, 0] ^= 1
    changes = {"label": {"y_test": np.array([9, 1, 2, 3, 4, 5])}, "shape": {"y_test": np.zeros(5)}}.get(damage, {})
    root = write_mosaics(tmp_path / "m", cifar10, **changes)
    if damage == "missing":
        (root / "train_01.webp").unlink()
    if damage == "size":
        Image.new("RGB", (64, 64)).save(root / "train_00.webp")
    if damage == "cut":
        (root / "train_00.webp").write_bytes((root / "train_00.webp").read_bytes()[:100])
    if damage in ("labels cut", "labels empty"):
        (root / "labels.npz").write_bytes((root / "labels.npz").read_bytes()[:100 * (damage == "labels cut")])
    if damage == "labels bit":
        np.savez_compressed(root / "labels.npz", y_train=np.arange(12) % 10, y_test=np.arange(6) % 10)
        content = bytearray((root / "labels.npz").read_bytes())
        content[content.index(b"y_train.npy") + 31] ^= 255  # the first byte of its data
        (root / "labels.npz").write_bytes(content)
    if damage == "one array":
        with open(root / "labels.npz", "wb") as file:
            np.save(file, np.zeros(3))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load("cifar10", root, **SMALL)


def test_pickles_that_are_not_the_published_ones_are_not_opened(cifar10, tmp_path, monkeypatch):
    root = write_batches(tmp_path / "b", cifar10, monkeypatch)

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="incomplete or damaged: remove the folder, then download=True"):
        load("cifar10", root, **SMALL)
    np.savez(tmp_path / "labels.npz", y_train=np.array([Trap()], dtype=object), y_test=np.zeros(6))
    with pytest.raises(ValueError, match="labels.npz is no archive of plain arrays, or damaged"):
        load("cifar10", tmp_path, **SMALL)
    assert not (tmp_path / "owned").exists()


# ---- ImageNet's classes, 6 + 2 images of each of 3


def write_imagenet(folder: Path, parts=(("train", 6), ("val", 2))) -> Path:
    random = np.random.default_rng(0)
    for part, count in parts:
        for label, wnid in enumerate(CLASSES):
            (folder / part / wnid).mkdir(parents=True)
            for i in range(count):
                shape = (20, 24) if i == 0 else (20, 24, 3)  # some are grey
                array = random.integers(60 * label, 60 * label + 60, shape, dtype=np.uint8)
                Image.fromarray(array).save(folder / part / wnid / f"{wnid}_{i}.JPEG")
    return folder


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    with tarfile.open(archive, "w") as tar:
        for path in sorted(folder.rglob("*"), reverse=True):  # any order
            tar.add(path, prefix + path.relative_to(folder).as_posix(), recursive=False)
        note = tarfile.TarInfo("classes.tsv")
        tar.addfile(note, io.BytesIO())
    return archive


def test_folders_and_archives_give_one_split(tmp_path):
    folder = write_imagenet(tmp_path / "folders")
    (folder / "train" / CLASSES[0] / ".DS_Store").touch()
    options = {"classes": CLASSES, "size": 16}
    (tmp_path / "tar").mkdir()
    pack(folder, tmp_path / "tar" / "imagenet13_tiny.tar", "./")
    splits = [load("imagenet13", folder, **options), load("imagenet13", tmp_path / "tar", **options, workers=1),
              load("imagenet13", tmp_path / "tar", **options, cache=tmp_path / "cache")]
    for split in splits:
        assert (len(split.database), len(split.query)) == (18, 6) and len(split.train) == round(18 * 10_000 / 16_900)
        assert split.database.images.shape[1:] == (3, 16, 16)
        assert split.classes == ("goldfish", "king penguin", "golden retriever")
        assert split.query.labels.tolist() == [0, 0, 1, 1, 2, 2]
        for label in range(3):
            assert 60 * label - 5 < split.database.images[split.database.labels == label].float().mean() < 60 * label + 65
        assert split.manifest == splits[0].manifest
        assert torch.equal(split.database.images, splits[0].database.images)


def test_the_papers_protocol_draws_from_both_parts(tmp_path):
    folder = write_imagenet(tmp_path)
    split = load("imagenet13", folder, classes=CLASSES, size=8, database_per_class=5, query_per_class=3, train=4, seed=1)
    assert split.database.labels.bincount().tolist() == [5] * 3 and split.query.labels.bincount().tolist() == [3] * 3
    assert len(split.train) == 4
    again = load("imagenet13", folder, classes=CLASSES, size=8, database_per_class=5, query_per_class=3, train=4)
    assert torch.equal(again.query_index, split.query_index) and not torch.equal(again.train_index, split.train_index)
    with pytest.raises(ValueError, match=f"class {CLASSES[0]} has 8 images, but .* 1300 [+] 100: ask for 8 together"):
        load("imagenet13", folder, classes=CLASSES, database_per_class=1300, query_per_class=100)
    for wrong, message in (({"query_per_class": 3}, "go together"), ({"classes": "n01443537"}, "at least 2 different"),
                           ({"size": 0}, "size must be pixels"), ({"train": 0}, "train must be"),
                           ({"channels": 1}, "unknown option")):
        with pytest.raises(ValueError, match=message):
            load("imagenet13", folder, **({"classes": CLASSES} | wrong))


def test_bare_class_folders_need_counts(tmp_path):
    folder = write_imagenet(tmp_path) / "train"
    with pytest.raises(ValueError, match="no val part .* 1300 and 100"):
        load("imagenet13", folder, classes=CLASSES)
    assert len(load("imagenet13", folder, classes=CLASSES, size=8, database_per_class=4, query_per_class=2).query) == 6


def test_imagenet_places_are_listed_and_gaps_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load("imagenet13", tmp_path)
    assert f"{tmp_path / 'imagenet13'} (for train/n01443537" in str(caught.value) and "image-net.org" in str(caught.value)
    folder = write_imagenet(tmp_path / "folders")
    with pytest.raises(ValueError, match="no images of class n02129165"):
        load("imagenet13", folder, classes=(*CLASSES, "n02129165"))
    (folder / "val" / CLASSES[1] / "notes.txt").touch()
    with pytest.raises(ValueError, match="notes.txt is no image file"):
        load("imagenet13", folder, classes=CLASSES)
    (folder / "val" / CLASSES[1] / "notes.txt").unlink()
    (folder / "train" / CLASSES[0] / f"{CLASSES[0]}_1.JPEG").write_bytes(b"broken")
    with pytest.raises(ValueError, match=f"cannot read image .*{CLASSES[0]}_1.JPEG"):
        load("imagenet13", folder, classes=CLASSES)


@pytest.mark.parametrize("attack, message", [
    ("../evil.JPEG", "leads out of the archive"),
    ("/train/evil.JPEG", "leads out of the archive"),
    (f"train/{CLASSES[0]}/../../evil.JPEG", "leads out of the archive"),
    ("link", "is no plain file"),
    ("twice", "comes twice"),
    ("text", "is no image file"),
    ("large", "bytes, more than"),
    ("gzip", "not a complete, uncompressed tar"),
    ("cut", "damaged or cut off: no end-of-archive mark"),
    ("gap", f"has no train images of {CLASSES[0]}"),
])
def test_hostile_and_damaged_archives_are_refused(tmp_path, monkeypatch, attack, message):
    archive = pack(write_imagenet(tmp_path / "folders"), tmp_path / "imagenet13.tar")
    content = archive.read_bytes()
    member = tarfile.TarInfo(attack if "/" in attack else f"train/{CLASSES[0]}/{CLASSES[0]}_0.JPEG")
    if attack == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    if attack == "text":
        member.name = f"train/{CLASSES[0]}/run.sh"
    if attack == "large":
        monkeypatch.setattr(colour_sources, "LARGEST_MEMBER", 10)
    if attack == "gzip":
        with tarfile.open(archive, "w:gz") as tar:
            tar.addfile(member)
    elif attack == "cut":
        archive.write_bytes(content[:3000])
    elif attack == "gap":
        with tarfile.open(archive, "w") as tar:
            member.name = f"train/{CLASSES[1]}/a.JPEG"
            tar.addfile(member)
    else:
        with tarfile.open(archive, "a") as tar:
            tar.addfile(member)
    before = sorted(tmp_path.parent.rglob("*evil*"))
    with pytest.raises(ValueError, match=message):
        load("imagenet13", tmp_path, classes=CLASSES)
    assert sorted(tmp_path.parent.rglob("*evil*")) == before


def test_an_archive_that_lost_members_is_refused(tmp_path):
    archive = pack(write_imagenet(tmp_path / "folders"), tmp_path / "imagenet13.tar")
    content = archive.read_bytes()
    assert len(load("imagenet13", tmp_path, classes=CLASSES).query) == 6
    with tarfile.open(archive) as tar:
        headers = [member.offset for member in tar if member.isreg()]
    middle, last = headers[len(headers) // 2], headers[-1]
    for damaged in (content[:middle], content[:middle + 100], content[:middle] + b"?" + content[middle + 1:], content[:last],
                    content[:last] + bytes(512)):  # at a member, in a header, a header, the last member, half an end
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or cut off: no end-of-archive mark|has no train images"):
            load("imagenet13", tmp_path, classes=CLASSES)


# ---- the real sets, where they are


@pytest.mark.skipif(not os.environ.get("PPLKIT_DATA"), reason="PPLKIT_DATA names no folder with the full sets")
@pytest.mark.parametrize("name, counts", [("cifar10", (59_000, 1000, 10_000)), ("imagenet13", None)])
def test_real_sets(name, counts):
    try:
        split = load(name)
    except FileNotFoundError as error:
        pytest.skip(str(error).splitlines()[0])
    if counts:
        assert (len(split.database), len(split.query), len(split.train)) == counts
    assert split.database.images.shape[1] == 3

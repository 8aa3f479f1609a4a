"""pplkit.decoding: the same pixels whoever decodes them and wherever they are kept."""

import hashlib
import time

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit import data, decoding
from pplkit.decoding import ImageFile, read_images


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


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_and_leaves_no_cache(files, tmp_path, workers):
    files[7].path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"cannot read image .*dog/2\.png"):
        read_images(files, (8, 6), 3, cache=tmp_path / "cache", workers=workers)
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ValueError, match="workers must be a whole number"):
        read_images(files, (8, 6), 3, workers=-1)


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

"""pplkit.storage: a file is the old one or the new one, never a part; JSON is valid JSON."""

import errno
import json
import math
import os
import re
import stat
from pathlib import Path

import pytest
import torch

from pplkit import storage


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_bytes_arrive_in_a_new_folder_with_the_users_permissions(tmp_path, umask):
    path = tmp_path / "a" / "b" / "file.bin"
    before = os.umask(umask)
    try:
        storage.write_bytes(path, b"content")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"content" and stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    storage.write_bytes(str(path), b"other")
    assert path.read_bytes() == b"other" and os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing, error):
    path = tmp_path / "file.bin"
    storage.write_bytes(path, b"old")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file.bin"]


def test_tensors_and_metadata_make_the_round_trip(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {
        "float": torch.randn(3, 4, requires_grad=True),
        "int8": torch.tensor([[-1, 1]], dtype=torch.int8),
        "transposed": torch.randn(3, 5).T,
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(7.0),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
    }
    storage.save_tensors(path, tensors, {"key": "ε = 0.3"})
    found, metadata = storage.read_tensors(path)
    assert metadata == storage.read_metadata(path) == {"key": "ε = 0.3"} and set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.detach()) and found[name].dtype == tensor.dtype


def test_without_metadata_the_header_is_empty(tmp_path):
    storage.save_tensors(tmp_path / "w.safetensors", {"x": torch.zeros(1)})
    assert storage.read_tensors(str(tmp_path / "w.safetensors"))[1] == {}


def test_reading_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*absent"):
        storage.read_tensors(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no file"):
        storage.read_tensors(tmp_path)
    storage.save_tensors(tmp_path / "good", {"x": torch.zeros(100)})
    whole = (tmp_path / "good").read_bytes()
    for content in (b"", b"text", whole[:-1], whole[:20]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad is not a complete safetensors file"):
            storage.read_tensors(tmp_path / "bad")
        with pytest.raises(ValueError, match=r"bad is not a complete safetensors file"):
            storage.read_metadata(tmp_path / "bad")


def test_json_keeps_order_and_ends_with_a_newline(tmp_path):
    content = {"z": [1, 2.5, None, True], "a": {"nested": "text"}}
    storage.save_json(tmp_path / "r.json", content)
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text) == content and list(json.loads(text)) == ["z", "a"] and text.endswith("}\n")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_refuses_nan_and_keeps_the_old_file(tmp_path, bad):
    storage.save_json(tmp_path / "r.json", {"map": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.save_json(tmp_path / "r.json", {"map": bad})
    assert json.loads((tmp_path / "r.json").read_text()) == {"map": 0.5} and os.listdir(tmp_path) == ["r.json"]


def test_provenance_names_commit_versions_and_device():
    found = storage.provenance()
    assert set(found) == {"commit", "torch", "device", "dtype", "cpu", "cores", "threads"}
    assert found["torch"] == torch.__version__ and found["cpu"] and found["threads"] == torch.get_num_threads()
    assert re.fullmatch(r"unknown|[0-9a-f]{7,40}(-dirty)?|.+-g[0-9a-f]+(-dirty)?", found["commit"])
    assert found["device"] == "cpu" or torch.cuda.is_available()


def test_provenance_is_of_the_code_that_runs(monkeypatch):
    before = storage.provenance()
    monkeypatch.setenv("PATH", "")  # as a commit would, this changes what git says; the running code is the same
    assert storage.provenance() == before


def test_provenance_names_the_device_that_was_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert [storage.provenance(device)["device"] for device in ("cpu", "cuda:1")] == ["cpu", "GPU 1"]
    assert storage.provenance("cuda:1")["dtype"] == "bfloat16"


@pytest.mark.parametrize("there, dtype", [(True, "bfloat16"), (False, "float32")])
def test_provenance_names_what_training_multiplies_in(monkeypatch, there, dtype):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: there)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: there)
    assert storage.provenance("cpu")["dtype"] == dtype
    with storage.devices.autocast(torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu") == there


@pytest.fixture
def asks_git_again():
    storage._commit.cache_clear()
    yield
    storage._commit.cache_clear()


@pytest.mark.usefixtures("asks_git_again")
def test_an_installed_copy_does_not_name_the_commit_of_the_repository_around_it(monkeypatch, tmp_path):
    installed = Path(storage.__file__).parent / "installed_copy.py"  # in this repository, not tracked by it
    monkeypatch.setattr(storage, "__file__", str(installed))
    assert storage.provenance()["commit"] == "unknown"
    storage._commit.cache_clear()
    monkeypatch.setattr(storage, "__file__", str(tmp_path / "storage.py"))
    assert storage.provenance()["commit"] == "unknown"


@pytest.mark.usefixtures("asks_git_again")
def test_provenance_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert storage.provenance()["commit"] == "unknown"


def test_scratch_lies_in_the_folder_and_leaves_no_file(tmp_path):
    pixels = storage.scratch((5, 1, 3, 2), tmp_path / "new")
    pixels[:] = torch.arange(30).view(5, 1, 3, 2)
    assert pixels.dtype == torch.uint8 and pixels[4, 0, 2, 1] == 29 and not list((tmp_path / "new").iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve space")
def test_scratch_on_a_full_disk_says_so(tmp_path, monkeypatch):
    def full(handle, start, size):
        raise OSError(errno.ENOSPC, f"No space left on device for {size} bytes")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device for 30 bytes"):
        storage.scratch((5, 1, 3, 2), tmp_path)

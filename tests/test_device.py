"""pplkit.device: where to run and in which precision."""

import pytest
import torch

from pplkit import device as devices


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve("auto") == torch.device("cpu") == devices.resolve()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve("auto") == torch.device("cuda")
    assert devices.resolve("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="'cuda:2' asked for, but torch sees 2 CUDA devices"):
        devices.resolve("cuda:2")
    assert devices.is_there("cuda:1") and not devices.is_there("cuda:2") and not devices.is_there("bogus")


def test_a_named_device_is_taken_as_it_is():
    for name in ("cpu", "meta"):
        assert devices.resolve(name) == torch.device(name) == devices.resolve(torch.device(name))


@pytest.mark.parametrize("name", ["cuda", "cuda:1", torch.device("cuda")])
def test_absent_cuda_is_an_error_not_a_fallback(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"device '{name}' asked for, .* use device='cpu' or 'auto'"):
        devices.resolve(name)


@pytest.mark.parametrize("name", ["gpu", "", None, 1.5])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda' or another torch device, got") as error:
        devices.resolve(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(("enabled", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_autocast_does_what_it_is_told(enabled, dtype):
    a = torch.rand(4, 4)
    with devices.autocast(torch.device("cpu"), enabled):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize(("library", "machine", "avx512", "amx", "capable"), [
    (True, "x86_64", True, False, True), (True, "x86_64", False, True, True), (True, "aarch64", False, False, True),
    (True, "x86_64", False, False, False), (True, "AMD64", False, False, False),  # the library would imitate it
    (False, "x86_64", True, True, False), (False, "aarch64", False, False, False)])
def test_autocast_by_itself_follows_the_processor(monkeypatch, library, machine, avx512, amx, capable):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: library)
    monkeypatch.setattr(devices.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    a = torch.rand(4, 4)
    with devices.autocast(torch.device("cpu")):
        assert (a @ a).dtype == (torch.bfloat16 if capable and torch.backends.mkldnn.is_available() else torch.float32)

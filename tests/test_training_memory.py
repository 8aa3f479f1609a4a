"""pplkit.training: what it says when memory runs out, and the ways to need less of it or be faster change no result."""

import pytest
import torch
from toy_game import SHORT, same, toy, train, weights

from pplkit import budget, training
from pplkit.hashing import ADSH, DSDH, HashingNetwork
from pplkit.hashing.network import build
from pplkit.training import PPLConfig, PPLRun, train_ppl


@pytest.fixture(scope="module")
def base() -> PPLRun:
    return train()


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
])
@pytest.mark.parametrize("phase", ["warm_up", "round"])
def test_a_batch_too_large_for_the_memory_names_the_one_to_try(monkeypatch, phase, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(training.Game, phase, fails)
    message = r"batch_size=16 and 1 surrogates \(two_conv\): try batch_size=8, or"
    with pytest.raises(training.OutOfMemory, match=message) as caught:
        train()
    assert caught.value.__cause__ is error
    with pytest.raises(training.OutOfMemory, match="batch_size=8, or checkpointing=True, which changes no result, or accum"):
        train(backbone="mobilenet_v3_small")
    with pytest.raises(training.OutOfMemory, match="batch_size=8, or accumulation=6, or several processes"):
        train_ppl(toy(), PPLConfig(**SHORT), progress=False, accumulation=3)


def test_parts_are_those_of_a_process_s_share_of_the_batch():
    config = PPLConfig(batch_size=16)
    assert "accumulation=4" in training._fewer(config, False, 2, 1)
    assert "accumulation" not in training._fewer(config, False, 2, 4)


def test_a_training_set_too_large_for_the_memory_is_named(monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(training, "Game", fails)
    message = r"the \d+ training images of \(1, \d+, \d+\) and 1 surrogates .two_conv. do not fit"
    with pytest.raises(training.OutOfMemory, match=message):
        train()


@pytest.mark.parametrize("victim", [ADSH(8, batch_size=6, outer_epochs=1), DSDH(8, batch_size=6, epochs=1)])
def test_a_victim_that_runs_out_of_memory_names_a_batch_size(monkeypatch, victim):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(HashingNetwork, "forward", fails)
    name = type(victim).__name__
    with pytest.raises(training.OutOfMemory, match=rf"out of memory: {name} .two_conv. with batch_size=6: try batch_size=3,"):
        victim.fit(toy().images, toy().labels, progress=False)


@pytest.mark.parametrize(("batch_size", "message"), [
    (6, "with batch_size=6: try batch_size=3, smaller images"), (1, "with batch_size=1: try smaller images")])
def test_passes_without_training_name_a_batch_size_too(monkeypatch, batch_size, message):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    network = build(8, "two_conv", 1, 28, seed=0)
    monkeypatch.setattr(HashingNetwork, "forward", fails)
    images = torch.zeros(9, 1, 28, 28, dtype=torch.uint8)
    with pytest.raises(training.OutOfMemory, match=f"out of memory: encode {message}"):
        network.encode(images, batch_size=batch_size)
    with pytest.raises(training.OutOfMemory, match=f"out of memory: protect {message}$"):
        budget.protect(images, fails, 0.1, batch_size=batch_size)
    monkeypatch.setattr(budget, "enforce", fails)
    with pytest.raises(training.OutOfMemory, match=f"out of memory: protect {message}$"):
        budget.protect(images, lambda x: x, 0.1, batch_size=batch_size)


def test_other_errors_come_as_they_are(monkeypatch):
    def fails(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(training.Game, "warm_up", fails)
    with pytest.raises(RuntimeError, match="^something else$") as caught:
        train()
    assert not isinstance(caught.value, training.OutOfMemory)


def test_checkpointing_changes_no_result():
    settings = SHORT | {"backbone": "mobilenet_v3_small", "batch_size": 8}
    runs = [train_ppl(toy(16), PPLConfig(**settings), progress=False, checkpointing=flag) for flag in (False, True)]
    for first, second in zip(*map(weights, runs), strict=True):
        assert torch.allclose(first, second, atol=1e-5)


def test_accumulation_changes_no_result_but_rounding(base, monkeypatch):
    parts, codes = [], training.Game.codes
    monkeypatch.setattr(training.Game, "codes", lambda self, *rest: parts.append(self.accumulation) or codes(self, *rest))
    run = train_ppl(toy(), PPLConfig(**SHORT), progress=False, accumulation=2)
    assert set(parts) == {2}
    for first, second in zip(weights(base), weights(run), strict=True):
        assert torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("flag", [False, True])
def test_the_game_is_compiled_on_request_only(monkeypatch, base, flag):
    calls = []
    monkeypatch.setattr(training.Game, "compile", lambda self: calls.append(self))
    assert same(train_ppl(toy(), PPLConfig(**SHORT), progress=False, compiled=flag), base)
    assert len(calls) == flag

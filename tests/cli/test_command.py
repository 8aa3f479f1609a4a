"""pplkit.cli: what all commands have in common."""

import argparse
import tomllib
from pathlib import Path

import pytest
import torch

from pplkit import cli
from pplkit.hashing import HashingNetwork


def test_the_command_is_installed_as_pplkit():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"pplkit": "pplkit.cli:main"}


def test_help_names_every_option_and_the_status(capsys):
    for words in ([], ["train"], ["protect"], ["evaluate"]):
        with pytest.raises(SystemExit) as caught:
            cli.main([*words, "--help"])
        assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 all pictures are protected" in text and "--pattern-size PIXELS" in text and "--train-share" in text


@pytest.mark.parametrize("text, value", [("0.1", 0.1), ("26/255", 26 / 255), ("0", 0.0), ("1", 1.0), ("8/255.0", 8 / 255)])
def test_budgets_as_typed(text, value):
    assert cli.epsilon(text) == value


@pytest.mark.parametrize("text", ["1.1", "-0.1", "8", "1/0", "abc", "", "nan", "1/2/3"])
def test_what_is_no_budget(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="is no budget"):
        cli.epsilon(text)
    with pytest.raises(SystemExit) as caught:
        cli.main(["protect", "a", "b", "--epsilon", text])
    assert caught.value.code == cli.WRONG_USE


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
                                   RuntimeError("CUDA error: out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_memory_that_runs_out_anywhere_is_one_line(photos, train_words, tmp_path, generator, monkeypatch, capsys, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(HashingNetwork, "forward", fails)
    monkeypatch.setattr(cli, "load", fails)
    words = ["evaluate", str(photos), "--generator", str(generator), "--size", "16", "--fast", "--quiet", "--device", "cpu",
             "--json", str(tmp_path / "result.json")]
    assert cli.main(words) == cli.WRONG_USE
    assert capsys.readouterr().err == "pplkit evaluate: out of memory: lower --batch-size (now 128) or --size (now 16)\n"
    assert cli.main(train_words(tmp_path / "g", "--epsilon", "0.1")) == cli.WRONG_USE
    assert capsys.readouterr().err == ("pplkit train: out of memory: lower --batch-size (now 8) or, where DATASET takes it, "
                                       "--size\n")
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        cli.main(words)

"""pplkit train: what is typed, what is written, how it goes on."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from pplkit import cli
from pplkit.config import IMAGENET_RATES, PPLConfig
from pplkit.game import Game
from pplkit.generator import PerturbationGenerator


def test_train_writes_a_generator_that_protect_takes(photos, train_words, tmp_path, capsys):
    output = tmp_path / "made" / "g.safetensors"
    assert cli.main(train_words(output, "--epsilon", "0.1")) == cli.DONE
    assert "epsilon 0.100 (26/255), norm inf, 18 images" in capsys.readouterr().out
    made = PerturbationGenerator.load(output)
    assert made.channels == 1 and made.metadata["config"]["epsilon"] == 0.1 and made.metadata["dataset"] == "folder:photos"
    assert [path.name for path in output.parent.iterdir()] == ["g.safetensors"]
    assert cli.main(["protect", str(photos), str(tmp_path / "out"), "--generator", str(output), "--quiet"]) == cli.DONE
    assert "epsilon 0.100 (26/255), norm inf, pattern made at 16 pixels" in capsys.readouterr().out
    fine = ["protect", str(photos), str(tmp_path / "fine"), "--generator", str(output), "--quiet", "--pattern-size"]
    assert cli.main([*fine, "0"]) == cli.DONE and "made at own size" in capsys.readouterr().out
    assert cli.main([*fine, "-1"]) == cli.WRONG_USE and "at least 0 pixels, got -1" in capsys.readouterr().err
    assert cli.main(train_words(output, "--epsilon", "0.1")) == cli.WRONG_USE
    assert "--force overwrites it" in capsys.readouterr().err
    assert cli.main(train_words(tmp_path / "x")) == cli.WRONG_USE
    said = capsys.readouterr().err
    assert "no epsilon for" in said and "give --epsilon" in said and "epsilon=" not in said


def test_train_does_not_write_onto_a_folder(train_words, tmp_path, capsys):
    assert cli.main(train_words(tmp_path, "--epsilon", "0.1", "--force")) == cli.WRONG_USE
    assert f"{tmp_path} is a folder: GENERATOR is a file to write" in capsys.readouterr().err


def test_train_reads_a_cache_as_it_reads_the_files(train_words, tmp_path):
    outputs = [tmp_path / "plain.safetensors", tmp_path / "mapped.safetensors"]
    for output, more in zip(outputs, ([], ["--workers", "2", "--cache", str(tmp_path / "cache")]), strict=True):
        assert cli.main(train_words(output, "--epsilon", "0.1", *more)) == cli.DONE
    plain, mapped = (PerturbationGenerator.load(path).state_dict() for path in outputs)
    assert all(torch.equal(plain[name], mapped[name]) for name in plain)
    assert len(list((tmp_path / "cache").glob("*.uint8"))) == 1


def test_train_passes_on_what_saves_memory_and_time(photos, tmp_path, monkeypatch):
    given = {}

    def stop(*_: object, **options: object):
        given.update(options)
        raise ValueError("far enough")

    monkeypatch.setattr(cli, "train_ppl", stop)
    command = ["train", f"folder:{photos}", str(tmp_path / "g.safetensors"), "--epsilon", "0.1", "--quiet"]
    all_three = ["--checkpointing", "--accumulation", "4", "--compile"]
    for options, expected in ([], (False, 1, False)), (all_three, (True, 4, True)):
        cli.main([*command, *options])
        assert (given["checkpointing"], given["accumulation"], given["compiled"]) == expected


def test_train_plays_the_game_that_is_asked_for(train_words, tmp_path, monkeypatch, capsys):
    given = []

    def stop(_, config: PPLConfig, **__: object):
        given.append(config)
        raise ValueError("far enough")

    monkeypatch.setattr(cli, "train_ppl", stop)
    words = [word for word in train_words(tmp_path / "g", "--epsilon", "0.1") if word not in ("--steps", "--warmup-steps", "2")]
    networks = ("two_conv", "dense", "two_conv", "dense", "two_conv", "two_conv")
    mixed = ["--regime", "shortcut", "--backbone", ",".join(networks)]
    for more in ([], ["--regime", "scatter", "--steps", "7"], mixed, [*mixed, "--surrogate-learning-rate", "6e-6"],
                 ["--regime", "several"], ["--regime", "several", "--backbone", "dense"]):
        assert cli.main([*words, *more]) == cli.WRONG_USE
    reference, scatter, shortcut, slower, several, dense = given
    of = {"epsilon": 0.1, "batch_size": reference.batch_size}
    assert reference == PPLConfig.reference("folder:photos", **of) and reference.steps == 800
    assert scatter == PPLConfig.scatter("folder:photos", steps=7, **of)
    assert shortcut == PPLConfig.shortcut("folder:photos", backbone=networks, **of) and shortcut.steps == 2400
    assert several == PPLConfig.several("folder:photos", **of) and len(set(several.backbone)) == 3
    assert dense == PPLConfig.shortcut("folder:photos", backbone="dense", **of)
    assert slower.surrogate_learning_rate == pytest.approx((6e-6,) * 4 + (2e-4,) * 2)  # the learners' in proportion
    capsys.readouterr()
    assert cli.main([*words, "--backbone", "two_conv,dense"]) == cli.WRONG_USE
    message = "backbone must be one name of a network, or 4 of them (one per surrogate, as code_lengths has)"
    assert message in capsys.readouterr().err


def test_train_passes_the_learning_rates_on(train_words, tmp_path, monkeypatch, capsys):
    given = []

    def stop(_, config: PPLConfig, **__: object):
        given.append((config.warmup_learning_rate, config.surrogate_learning_rate))
        raise ValueError("far enough")

    monkeypatch.setattr(cli, "train_ppl", stop)
    rates = ["--warmup-learning-rate", "2e-4", "--surrogate-learning-rate", "6e-6"]
    for more in ([], rates, [*rates[:3], "-1"]):
        assert cli.main(train_words(tmp_path / "g", "--epsilon", "0.1", *more)) == cli.WRONG_USE
    assert given == [(1e-3, 3e-5), (2e-4, 6e-6)] and "surrogate_learning_rate must be" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    for name, rate in zip(rates[::2], ("2e-4", "6e-6"), strict=True):
        assert f"{rate} for images of 64 pixels" in help_text
        assert IMAGENET_RATES[name.removeprefix("--").replace("-", "_")] == float(rate)


@pytest.mark.parametrize("dataset", ["cifar10", "fashion-mnist", "imagenet13"])
def test_absent_data_is_asked_for_in_words_of_the_command_line(dataset, tmp_path, capsys):
    assert cli.main(["train", dataset, str(tmp_path / "g"), "--root", str(tmp_path)]) == cli.WRONG_USE
    fetch = "" if dataset == "imagenet13" else "--download fetches it, "
    assert capsys.readouterr().err.endswith(f"\nOn the command line: {fetch}--root FOLDER says where it is\n")


def test_download_is_passed_on(tmp_path, monkeypatch, capsys):
    def load(name, root, *, download, **options):
        raise FileNotFoundError(f"download {download}")

    monkeypatch.setattr(cli, "load", load)
    for more, said in ([], "download False\nOn the command line: --download fetches it"), (["--download"], "download True\nOn"):
        assert cli.main(["train", "cifar10", str(tmp_path / "g"), *more]) == cli.WRONG_USE
        assert said in capsys.readouterr().err


def interrupted(monkeypatch, words: list[str]) -> None:
    """Stop a training in its second step, as the keyboard does."""
    round_ = Game.round

    def stops(game, step):
        if step == 1:
            raise KeyboardInterrupt
        return round_(game, step)

    with monkeypatch.context() as patch:
        patch.setattr(Game, "round", stops)
        assert cli.main(words) == cli.INTERRUPTED


def test_a_state_of_another_call_is_named_and_force_starts_anew(train_words, tmp_path, monkeypatch, capsys):
    output, state = tmp_path / "g.safetensors", tmp_path / "g.safetensors.run"
    interrupted(monkeypatch, train_words(output, "--epsilon", "0.1"))
    assert state.exists()
    other = train_words(output, "--epsilon", "0.2")
    capsys.readouterr()
    assert cli.main(other) == cli.WRONG_USE
    said = capsys.readouterr().err
    assert "epsilon: 0.1 in the file, 0.2 asked for" in said and f"delete {state} or give --force" in said
    assert state.exists() and not output.exists()
    assert cli.main([*other, "--force"]) == cli.DONE and not state.exists()
    assert PerturbationGenerator.load(output).metadata["config"]["epsilon"] == 0.2
    assert cli.main(train_words(tmp_path / "alone", "--epsilon", "0.2")) == cli.DONE
    tensors = [load_file(path) for path in (output, tmp_path / "alone")]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    state.write_bytes(b"cut")
    assert cli.main([*other, "--force"]) == cli.DONE and not state.exists()


def test_an_interrupted_call_with_force_goes_on(train_words, tmp_path, monkeypatch):
    output = tmp_path / "g.safetensors"
    output.write_bytes(b"an earlier one")
    words = train_words(output, "--epsilon", "0.1", "--force")
    interrupted(monkeypatch, words)
    warm_up, done = Game.warm_up, []
    monkeypatch.setattr(Game, "warm_up", lambda game: (done.append(1), warm_up(game))[1])
    assert cli.main(words) == cli.DONE and done == []


def test_train_goes_on_where_it_was_interrupted(train_words, tmp_path, monkeypatch):
    words = ["--epsilon", "0.1", "--seed", "3"]
    assert cli.main(train_words(tmp_path / "whole.safetensors", *words)) == cli.DONE
    broken = tmp_path / "broken.safetensors"
    interrupted(monkeypatch, train_words(broken, *words))
    assert not broken.exists()
    assert cli.main(train_words(broken, *words)) == cli.DONE
    tensors = [load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_two_processes_from_a_terminal_write_the_generator_of_one(photos, tmp_path):
    """What `accelerate launch -m pplkit.cli train` starts for two GPUs; accelerate itself would want mpirun on CPUs."""
    words = ["train", f"folder:{photos}", "GENERATOR", "--epsilon", "0.2", "--size", "24", "--channels", "1",
             "--batch-size", "8", "--warmup-steps", "2", "--steps", "2", "--quiet", "--device", "cpu"]
    plain = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    plain |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
              "ONEDNN_MAX_CPU_ISA": "AVX2"}  # float32: bfloat16 rounds half a batch otherwise than a whole one
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    made = []
    for name, before in (("two", launcher), ("one", [])):
        words[2] = str(tmp_path / f"{name}.safetensors")
        done = subprocess.run([sys.executable, *before, "-m", "pplkit.cli", *words], env=plain, capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written: ") == 1  # the first process speaks for both
        made.append(load_file(words[2]))
    assert made[0].keys() == made[1].keys()
    for name, expected in made[1].items():
        assert torch.allclose(made[0][name].double(), expected.double(), atol=2e-5, rtol=3e-3), name

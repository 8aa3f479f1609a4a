"""pplkit.cli: what is typed, what is printed, what is returned."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pplkit import cli
from pplkit.config import IMAGENET_RATES, PPLConfig
from pplkit.experiments import folder
from pplkit.game import Game
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import CollapseWarning, Victim


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Class folders: grey stripes at a height that tells the class."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    random = np.random.default_rng(0)
    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(20):
            array = random.integers(0, 60, (24, 20), dtype=np.uint8)
            array[8 * label:8 * label + 8] += 150
            Image.fromarray(array).save(folder / f"class{label}" / f"{i}.{'png' if i % 2 else 'bmp'}")
    return folder


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "generator.safetensors"
    PerturbationGenerator(1, (4, 4, 4, 4)).save(path, config={"epsilon": 0.2, "norm": "inf"})
    return path


def test_protect_says_what_it_did_and_where(photos, tmp_path, capsys):
    arguments = ["protect", str(photos), str(tmp_path / "out"), "--generator", "pretrained", "--epsilon", "26/255", "--quiet"]
    assert cli.main(arguments) == cli.DONE
    printed = capsys.readouterr()
    assert "40 protected, 0 done before, 0 failed; epsilon 0.102 (26/255), norm inf, pattern made at 28 pixels" in printed.out
    assert printed.err == ""
    assert len(list((tmp_path / "out").rglob("*.png"))) == 40 and (tmp_path / "out-report.csv").is_file()
    assert cli.main(arguments) == cli.DONE
    assert "0 protected, 40 done before" in capsys.readouterr().out


def test_files_that_failed_are_listed_last_and_change_the_status(tmp_path, generator, capsys):
    (tmp_path / "in").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"broken")
    arguments = ["protect", str(tmp_path / "in"), str(tmp_path / "out"), "--generator", str(generator), "--quiet"]
    assert cli.main(arguments) == cli.SOME_FAILED
    printed = capsys.readouterr()
    # the header's budget
    assert "1 protected, 0 done before, 1 failed; epsilon 0.200 (51/255), norm inf, pattern made at own size" in printed.out
    assert printed.err.splitlines()[-1].startswith("NOT PROTECTED: b.png: cannot identify image file")
    assert "<_io" not in printed.err


def test_protect_with_other_settings_in_between_goes_on_where_it_was(tmp_path, generator, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8), 90).save(tmp_path / "in" / name)
    words = ["protect", str(tmp_path / "in"), str(tmp_path / "out"), "--generator", str(generator), "--quiet", "--epsilon"]
    assert cli.main([*words, "8/255"]) == cli.DONE
    report = (tmp_path / "out-report.csv").read_text()
    assert cli.main([*words, "0.1"]) == cli.SOME_FAILED
    assert cli.main([*words, "8/255"]) == cli.DONE
    assert "0 protected, 2 done before, 0 failed" in capsys.readouterr().out
    assert (tmp_path / "out-report.csv").read_text() == report


@pytest.mark.parametrize("change, message", [
    ({"--generator": "nowhere.safetensors"}, "no generator checkpoint at nowhere"),
    ({"--generator": None}, "--generator pretrained"),
    ({"--device": "quantum"}, "'quantum'"),
    ({"INPUT": "nowhere"}, "no folder"),
    ({"OUTPUT": "in/out"}, "inside one another"),
])
def test_wrong_use_is_one_line_and_status_2(tmp_path, monkeypatch, generator, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    options = {"--generator": str(generator), "--device": "cpu"} | change
    words = [options.pop("INPUT", "in"), options.pop("OUTPUT", "out")]
    words += [word for pair in options.items() if pair[1] is not None for word in pair]
    assert cli.main(["protect", *words]) == cli.WRONG_USE
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("pplkit protect: ") and message in printed.err
    assert not (tmp_path / "out").exists()


def test_a_generator_without_a_budget_needs_one(tmp_path, capsys):
    PerturbationGenerator(1, (4,)).save(tmp_path / "g.safetensors")
    (tmp_path / "in").mkdir()
    words = ["protect", str(tmp_path / "in"), str(tmp_path / "out"), "--generator", str(tmp_path / "g.safetensors")]
    assert cli.main(words) == cli.WRONG_USE and "give --epsilon" in capsys.readouterr().err
    assert cli.main([*words, "--epsilon", "0.1", "--quiet"]) == cli.DONE


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


def test_help_names_every_option_and_the_status(capsys):
    for words in ([], ["train"], ["protect"], ["evaluate"]):
        with pytest.raises(SystemExit) as caught:
            cli.main([*words, "--help"])
        assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 all pictures are protected" in text and "--pattern-size PIXELS" in text and "--train-share" in text


def test_interrupting_ends_with_a_word_and_the_next_call_goes_on(tmp_path, generator, capsys):
    (tmp_path / "in").mkdir()
    for i in range(80):
        Image.new("L", (150, 150), i % 256).save(tmp_path / "in" / f"{i}.png")
    words = ["protect", str(tmp_path / "in"), str(tmp_path / "out"), "--generator", str(generator), "--quiet", "--workers", "1"]
    # a test run in the background of a shell ignores SIGINT, and so would its children
    program = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from pplkit.cli import main; "
               "sys.exit(main())")
    process = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*.png")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    done = len(list((tmp_path / "out").glob("*.png")))
    assert process.returncode == cli.INTERRUPTED and "interrupted; the same command goes on" in said and 0 < done < 80
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert cli.main(words) == cli.DONE
    assert f"{80 - done} protected, {done} done before" in capsys.readouterr().out


def test_evaluate_prints_a_table_and_stores_it(photos, tmp_path, generator, capsys):
    words = ["evaluate", str(photos), "--generator", str(generator), "--size", "24", "--bits", "8", "--fast", "--quiet",
             "--json", str(tmp_path / "result.json")]
    assert cli.main(words) == cli.DONE
    printed = capsys.readouterr().out
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["epsilon"] == 0.2 and stored["fast"] is True and stored["folder"] == "photos"
    assert set(stored["rows"]) == {"adsh clean", "adsh adversarial", "dsdh clean", "dsdh adversarial"}
    assert stored["split"]["counts"]["query"] == 4 and stored["victims"]["adsh"]["bits"] == 8
    for name, scenarios in stored["rows"].items():
        assert set(scenarios) == {"C->C", "C->A", "A->C", "A->A"}
        for scenario, value in scenarios.items():
            assert f"{scenario}      {value['mAP']:.3f}" in printed, name
    assert printed.count("in-domain") == 4
    assert cli.main(words) == cli.WRONG_USE and "--force overwrites it" in capsys.readouterr().err


def test_what_ends_evaluate_is_said_before_the_training_or_of_it(photos, tmp_path, generator, monkeypatch, capsys):
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "evaluate_folder", stop)
    words = ["evaluate", str(photos), "--generator", str(generator), "--json", str(tmp_path / "new" / "result.json")]
    assert cli.main(words) == cli.INTERRUPTED and "interrupted; nothing was kept" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)
    assert cli.main(words) == cli.WRONG_USE
    assert f"cannot write {tmp_path / 'new' / 'result.json'}: --json names another file" in capsys.readouterr().err


def test_evaluate_takes_the_folder_that_protect_wrote(photos, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert cli.main(["protect", str(photos), out, "--generator", "pretrained", "--epsilon", "0.3", "--quiet"]) == cli.DONE
    words = ["evaluate", str(photos), "--protected", out, "--size", "20", "--channels", "1", "--methods", "dsdh", "--fast",
             "--quiet", "--json", str(tmp_path / "result.json")]
    assert cli.main(words) == cli.DONE
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["protected"] == "out" and set(stored["rows"]) == {"dsdh clean", "dsdh adversarial"}
    (tmp_path / "out" / "class1" / "3.png").unlink()
    assert cli.main([*words, "--force"]) == cli.WRONG_USE
    assert "1 names differ, the first is 'class1/3'" in capsys.readouterr().err
    capsys.readouterr()
    for option, value in {"--generator": "pretrained", "--epsilon": "0.1", "--norm": "2"}.items():  # would not be looked at
        assert cli.main([*words, "--force", option, value]) == cli.WRONG_USE
        assert f"protected already: leave {option} out" in capsys.readouterr().err


def test_evaluate_takes_the_formats_that_protect_takes(tmp_path, capsys):
    random = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "in" / str(label)).mkdir(parents=True)
        for i in range(4):
            array = random.integers(0, 65536, (16, 16), dtype=np.uint16)
            Image.fromarray(array).save(tmp_path / "in" / str(label) / f"{i}.png")
            Image.fromarray((array >> 8).astype(np.uint8)).save(tmp_path / "in" / str(label) / f"{i + 4}.tga")
    out = str(tmp_path / "out")
    assert cli.main(["protect", str(tmp_path / "in"), out, "--generator", "pretrained", "--quiet"]) == cli.DONE
    words = ["evaluate", str(tmp_path / "in"), "--protected", out, "--size", "16", "--methods", "dsdh", "--fast", "--quiet"]
    assert cli.main(words) == cli.DONE
    for name in ("1.png", "2.png"):
        (tmp_path / "in" / "0" / name).write_bytes(b"broken")
    capsys.readouterr()
    assert cli.main([*words, "--force"]) == cli.WRONG_USE
    said = capsys.readouterr().err
    assert "0/1.png: cannot identify" in said and "0/2.png: cannot identify" in said and "<_io" not in said


def test_evaluate_passes_the_learning_rate_on_and_shows_who_collapses(photos, tmp_path, generator, monkeypatch, capsys):
    fit = folder.fit_victim

    def collapses(victim, *others):
        warnings.warn("all images get the same code", CollapseWarning, stacklevel=1)
        return fit(victim, *others)

    monkeypatch.setattr(folder, "fit_victim", collapses)
    words = ["evaluate", str(photos), "--generator", str(generator), "--size", "16", "--fast", "--quiet", "--methods", "dsdh",
             "--learning-rate", "2e-4", "--json", str(tmp_path / "result.json")]
    assert cli.main(words) == cli.DONE
    said = [line for line in capsys.readouterr().err.splitlines() if line.endswith(": all images get the same code")]
    assert said == [f"pplkit evaluate: warning: dsdh trained on {domain} images: all images get the same code"
                    for domain in ("clean", "adversarial")]
    assert json.loads((tmp_path / "result.json").read_text())["victims"]["dsdh"]["learning_rate"] == 2e-4


def train_words(photos: Path, output: Path, *more: str) -> list[str]:
    return ["train", f"folder:{photos}", str(output), "--size", "16", "--channels", "1", "--warmup-steps", "2", "--steps", "2",
            "--batch-size", "8", "--device", "cpu", "--quiet", *more]


def test_train_writes_a_generator_that_protect_takes(photos, tmp_path, capsys):
    output = tmp_path / "made" / "g.safetensors"
    assert cli.main(train_words(photos, output, "--epsilon", "0.1")) == cli.DONE
    assert "epsilon 0.100 (26/255), norm inf, 18 images" in capsys.readouterr().out
    made = PerturbationGenerator.load(output)
    assert made.channels == 1 and made.metadata["config"]["epsilon"] == 0.1 and made.metadata["dataset"] == "folder:photos"
    assert [path.name for path in output.parent.iterdir()] == ["g.safetensors"]
    assert cli.main(["protect", str(photos), str(tmp_path / "out"), "--generator", str(output), "--quiet"]) == cli.DONE
    assert "epsilon 0.100 (26/255), norm inf, pattern made at 16 pixels" in capsys.readouterr().out
    fine = ["protect", str(photos), str(tmp_path / "fine"), "--generator", str(output), "--quiet", "--pattern-size"]
    assert cli.main([*fine, "0"]) == cli.DONE and "made at own size" in capsys.readouterr().out
    assert cli.main([*fine, "-1"]) == cli.WRONG_USE and "at least 0 pixels, got -1" in capsys.readouterr().err
    assert cli.main(train_words(photos, output, "--epsilon", "0.1")) == cli.WRONG_USE
    assert "--force overwrites it" in capsys.readouterr().err
    assert cli.main(train_words(photos, tmp_path / "x")) == cli.WRONG_USE
    said = capsys.readouterr().err
    assert "no epsilon for" in said and "give --epsilon" in said and "epsilon=" not in said


def test_train_does_not_write_onto_a_folder(photos, tmp_path, capsys):
    assert cli.main(train_words(photos, tmp_path, "--epsilon", "0.1", "--force")) == cli.WRONG_USE
    assert f"{tmp_path} is a folder: GENERATOR is a file to write" in capsys.readouterr().err


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


def test_train_passes_the_learning_rates_on(photos, tmp_path, monkeypatch, capsys):
    given = []

    def stop(_, config: PPLConfig, **__: object):
        given.append((config.warmup_learning_rate, config.surrogate_learning_rate))
        raise ValueError("far enough")

    monkeypatch.setattr(cli, "train_ppl", stop)
    rates = ["--warmup-learning-rate", "2e-4", "--surrogate-learning-rate", "6e-6"]
    for more in ([], rates, [*rates[:3], "-1"]):
        assert cli.main(train_words(photos, tmp_path / "g", "--epsilon", "0.1", *more)) == cli.WRONG_USE
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


def test_a_state_of_another_call_is_named_and_force_starts_anew(photos, tmp_path, monkeypatch, capsys):
    output, state = tmp_path / "g.safetensors", tmp_path / "g.safetensors.run"
    interrupted(monkeypatch, train_words(photos, output, "--epsilon", "0.1"))
    assert state.exists()
    other = train_words(photos, output, "--epsilon", "0.2")
    capsys.readouterr()
    assert cli.main(other) == cli.WRONG_USE
    said = capsys.readouterr().err
    assert "epsilon: 0.1 in the file, 0.2 asked for" in said and f"delete {state} or give --force" in said
    assert state.exists() and not output.exists()
    assert cli.main([*other, "--force"]) == cli.DONE and not state.exists()
    assert PerturbationGenerator.load(output).metadata["config"]["epsilon"] == 0.2
    assert cli.main(train_words(photos, tmp_path / "alone", "--epsilon", "0.2")) == cli.DONE
    tensors = [load_file(path) for path in (output, tmp_path / "alone")]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    state.write_bytes(b"cut")
    assert cli.main([*other, "--force"]) == cli.DONE and not state.exists()


def test_an_interrupted_call_with_force_goes_on(photos, tmp_path, monkeypatch):
    output = tmp_path / "g.safetensors"
    output.write_bytes(b"an earlier one")
    words = train_words(photos, output, "--epsilon", "0.1", "--force")
    interrupted(monkeypatch, words)
    warm_up, done = Game.warm_up, []
    monkeypatch.setattr(Game, "warm_up", lambda game: (done.append(1), warm_up(game))[1])
    assert cli.main(words) == cli.DONE and done == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
                                   RuntimeError("CUDA error: out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_memory_that_runs_out_anywhere_is_one_line(photos, tmp_path, generator, monkeypatch, capsys, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(Victim, "_start", fails)
    monkeypatch.setattr(Game, "__post_init__", fails)
    words = ["evaluate", str(photos), "--generator", str(generator), "--size", "16", "--fast", "--quiet", "--device", "cpu",
             "--json", str(tmp_path / "result.json")]
    assert cli.main(words) == cli.WRONG_USE
    assert capsys.readouterr().err == "pplkit evaluate: out of memory: lower --size (now 16)\n"
    assert cli.main(train_words(photos, tmp_path / "g", "--epsilon", "0.1")) == cli.WRONG_USE
    assert capsys.readouterr().err == ("pplkit train: out of memory: lower --batch-size (now 8) or, where DATASET takes it, "
                                       "--size\n")
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        cli.main(words)


def test_train_goes_on_where_it_was_interrupted(photos, tmp_path, monkeypatch, capsys):
    words = ["--epsilon", "0.1", "--seed", "3"]
    assert cli.main(train_words(photos, tmp_path / "whole.safetensors", *words)) == cli.DONE
    round_, played = Game.round, []

    def stops(game, step):
        if step == 1 and not played:
            played.append(step)
            raise KeyboardInterrupt
        return round_(game, step)

    monkeypatch.setattr(Game, "round", stops)
    broken = tmp_path / "broken.safetensors"
    assert cli.main(train_words(photos, broken, *words)) == cli.INTERRUPTED and not broken.exists()
    assert cli.main(train_words(photos, broken, *words)) == cli.DONE
    tensors = [load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_the_command_is_installed_as_pplkit():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"pplkit": "pplkit.cli:main"}


def test_two_processes_from_a_terminal_write_the_generator_of_one(photos, tmp_path):
    """What `accelerate launch -m pplkit.cli train` starts for two GPUs; accelerate itself would want mpirun on CPUs."""
    words = ["train", f"folder:{photos}", "GENERATOR", "--epsilon", "0.2", "--size", "24", "--channels", "1",
             "--batch-size", "8", "--warmup-steps", "2", "--steps", "2", "--quiet", "--device", "cpu"]
    plain = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    plain |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
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

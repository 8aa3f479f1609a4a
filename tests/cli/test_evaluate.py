"""pplkit evaluate: what is typed, what is printed, what is stored."""

import json
import os
import shutil
import warnings

import numpy as np
from PIL import Image

from pplkit import cli
from pplkit.experiments import folder
from pplkit.hashing import CollapseWarning


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


def test_decoding_in_processes_and_from_disk_changes_no_figure(photos, tmp_path, generator):
    words = ["evaluate", str(photos), "--generator", str(generator), "--size", "24", "--bits", "8", "--fast", "--quiet"]
    words.append("--json")
    plain, mapped = tmp_path / "plain.json", tmp_path / "mapped.json"
    assert cli.main([*words, str(plain)]) == cli.DONE
    assert cli.main([*words, str(mapped), "--workers", "2", "--cache", str(tmp_path / "cache")]) == cli.DONE
    assert json.loads(plain.read_text())["rows"] == json.loads(mapped.read_text())["rows"]
    assert len(list((tmp_path / "cache").glob("*.uint8"))) == 1


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


def test_a_folder_is_no_result_file(photos, tmp_path, generator, capsys):
    words = ["evaluate", str(photos), "--generator", str(generator), "--json", str(tmp_path), "--force", "--quiet"]
    assert cli.main(words) == cli.WRONG_USE
    assert f"{tmp_path} is a folder: --json names a file" in capsys.readouterr().err


def test_evaluate_warns_of_a_generator_of_the_folder_as_it_was(photos, train_words, tmp_path, capsys):
    output, later = tmp_path / "g.safetensors", tmp_path / "photos"
    assert cli.main(train_words(output, "--epsilon", "0.1")) == cli.DONE
    shutil.copytree(photos, later)
    shutil.copy(next(later.rglob("*.png")), later / "class0" / "new.png")
    words = ["--generator", str(output), "--json", str(tmp_path / "r.json"), "--size", "16", "--channels", "1", "--methods",
             "dsdh", "--fast", "--quiet", "--device", "cpu", "--force"]
    capsys.readouterr()
    assert cli.main(["evaluate", str(photos), *words]) == cli.DONE
    assert "other files" not in capsys.readouterr().err
    assert cli.main(["evaluate", str(later), *words]) == cli.DONE
    assert "the generator was trained on other files of folder:photos" in capsys.readouterr().err


def test_evaluate_refuses_a_generator_that_learned_from_the_queries(photos, train_words, tmp_path, capsys):
    output = tmp_path / "g.safetensors"
    assert cli.main(train_words(output, "--epsilon", "0.1", "--seed", "3")) == cli.DONE
    words = ["evaluate", str(photos), "--generator", str(output), "--size", "16", "--methods", "dsdh", "--fast", "--quiet"]
    capsys.readouterr()
    assert cli.main([*words, "--json", str(tmp_path / "0.json")]) == cli.WRONG_USE
    assert ("with other queries left out (seed 3, 4 queries), so it may know these (seed 0, 4): evaluate with the seed"
            in capsys.readouterr().err)
    assert cli.main([*words, "--seed", "3", "--json", str(tmp_path / "3.json")]) == cli.DONE

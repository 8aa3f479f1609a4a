"""Arguments of every experiment: continuing, and starting anew without losing what is there."""

import json

import pytest

from pplkit.experiments import common, table1


def test_a_run_continues_unless_it_is_told_to_start_anew(tmp_path, capsys):
    work = tmp_path / "work"
    arguments = ["--work", str(work)]
    assert common.parse(common.parser("x"), arguments).work == work
    assert common.parse(common.parser("x"), [*arguments, "--resume"]).work == work
    assert not work.exists() and capsys.readouterr().out == ""
    first, second = (common.parse(common.parser("x"), [*arguments, "--no-resume"]).work for _ in range(2))
    assert first != second and first.parent == second.parent == work and not any(first.iterdir())
    assert f"--work {first}" in capsys.readouterr().out
    third = common.parse(common.parser("x"), [*arguments, "--no-resume", "--fast"]).work
    said = capsys.readouterr().out.split("--work ")[1].strip()
    assert common.parse(common.parser("x"), ["--work", said, "--fast"]).work == third  # what is printed continues the run


def test_a_fast_run_leaves_the_steps_of_the_full_one_alone(tmp_path):
    assert common.parse(common.parser("x"), ["--work", str(tmp_path), "--fast"]).work == tmp_path / "fast"


def test_an_experiment_runs_in_one_process(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        common.parse(common.parser("x"), [])
    assert "runs in one process" in capsys.readouterr().err


@pytest.mark.parametrize(("changed", "said"), [
    ({"load": {"train": 5}}, r"was made with --load {}, this run has {'train': 5}"),
    ({"seeds": [0]}, r"has seeds [1] that this run has not"),
    ({"bits": [16]}, r"has bits [8] that this run has not"),
    ({"same": {"counts": (1, 2)}}, r"was made with counts [1, 3], this run has [1, 2]"),
    ({"budget": 0.1}, r"another budget (x, epsilon 0.300 (77/255)), this run has 0.100 (26/255)"),
])
def test_only_a_run_of_at_least_as_much_replaces_a_result(tmp_path, capsys, changed, said):
    path = tmp_path / "a.json"
    same = {"load": {}, "seeds": [0, 1], "bits": [8, 16], "budget": 0.3}
    common.keep_stored(common.parser("x"), path, **(same | changed))  # nothing there
    cells = [{"bits": bits, "seeds": {"0": 0.1, "1": 0.2}} for bits in (8, 16)]
    path.write_text(json.dumps({"what": "x, epsilon 0.300 (77/255)", "load": {}, "counts": [1, 3], "cells": cells}))
    common.keep_stored(common.parser("x"), path, **same)
    common.keep_stored(common.parser("x"), path, [0, 1, 2], {"cache": "a", "workers": 2}, bits=[8, 16, 24])
    with pytest.raises(SystemExit):
        common.keep_stored(common.parser("x"), path, **(same | changed))
    assert said in capsys.readouterr().err


def test_starting_anew_trains_again_and_keeps_the_old_steps(pictures, load_grey, tmp_path, monkeypatch):
    load_grey(table1)
    trained = []
    fit = table1.fit_victim
    monkeypatch.setattr(table1, "fit_victim", lambda victim, split, train: trained.append(victim) or fit(victim, split, train))
    arguments = ["--dataset", f"folder:{pictures}", "--epsilon", "0.3", "--bits", "8", "--fast", "--device", "cpu",
                 "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    table1.main(arguments)
    kept = {path: path.read_bytes() for path in (tmp_path / "work").rglob("*") if path.is_file()}
    table1.main(arguments)
    assert len(trained) == 4
    table1.main([*arguments, "--no-resume"])
    assert len(trained) == 8
    assert all(path.read_bytes() == content for path, content in kept.items())

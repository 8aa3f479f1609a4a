"""Table 1's machinery on a tiny folder of images."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import striped_pictures

from pplkit.checkpoints import OtherCheckpoint
from pplkit.config import PPLConfig
from pplkit.experiments import common, games, table1
from pplkit.generator import PerturbationGenerator


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return striped_pictures.write(tmp_path_factory.mktemp("photos", numbered=False), 3, 24, (28, 28))


@pytest.fixture
def arguments(photos, tmp_path, monkeypatch):
    load = table1.load
    monkeypatch.setattr(table1, "load", lambda name, root, seed: load(name, root, seed=seed, size=28, channels=1))
    return ["--dataset", f"folder:{photos}", "--epsilon", "0.3", "--bits", "16", "--fast", "--work", str(tmp_path / "work"),
            "--out", str(tmp_path / "out")]


def test_every_cell_is_stored_with_its_origin_and_a_second_call_only_reads(arguments, tmp_path, capsys):
    table1.main([*arguments, "--seeds", "0", "1"])
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    assert len(stored["cells"]) == 2 * 4 * (2 + 1)  # train domains x scenarios x (ADSH with two protocols, DSDH with one)
    for cell in stored["cells"]:
        assert set(cell["seeds"]) == {"0", "1"}
        assert cell["mAP"] == pytest.approx(np.mean(list(cell["seeds"].values())), abs=1e-4)
        assert cell["low"] <= min(cell["seeds"].values()) <= max(cell["seeds"].values()) <= cell["high"]
        assert cell["worst_tie_order"] <= cell["mAP"] <= cell["best_tie_order"]
    assert stored["generator"]["epsilon"] == 0.3
    assert all(run["commits"] and run["torch"] and run["device"] for run in stored["runs"].values())
    shown = capsys.readouterr().out
    assert "ADSH, learned codes" in shown and "seeds [0, 1], reference, two_conv from random weights" in shown
    made = json.loads(next((tmp_path / "work").glob("fast/table1*/seed0/generator.json")).read_text())
    assert made["key"]["generator"] == stored["generator"] | {"seed": 0} and made["collapsed"] is None
    shipped = next((tmp_path / "work").glob("fast/table1*/seed0/generator.safetensors"))
    assert PerturbationGenerator.load(shipped).metadata["split"] == made["key"]["split"]
    assert stored["runs"]["0"]["generator_seconds"] == made["seconds"] > 0

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*adversarial*")}
    table1.main([*arguments, "--seeds", "0", "1"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*adversarial*")} == before
    assert json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())["cells"] == stored["cells"]


def test_a_game_in_other_parts_is_another_one_where_they_matter(arguments, tmp_path):
    table1.main([*arguments, "--accumulation", "2"])
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    assert stored["runs"]["0"]["memory"]["accumulation"] == 2
    table1.main(arguments)  # two_conv has no batch normalisation: the same game, taken as it is
    assert json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text()) == stored
    dataset = arguments[arguments.index("--dataset") + 1]
    normalised = {"bits": (), "backbone": "mobilenet_v3_small", "game": {"code_lengths": (4,), "batch_size": 8}}
    table1.run_seed(dataset, None, 0, 0.3, tmp_path, "cpu", True, **normalised)
    with pytest.raises(ValueError, match="generator.json was computed with other settings .accumulation differ"):
        table1.run_seed(dataset, None, 0, 0.3, tmp_path, "cpu", True, **normalised, memory={"accumulation": 2})
    next(tmp_path.rglob("seed0/generator.json")).unlink()  # as after another experiment, which keeps the game only
    with pytest.raises(OtherCheckpoint, match="accumulation=1, 2 asked for"):
        table1.run_seed(dataset, None, 0, 0.3, tmp_path, "cpu", True, **normalised, memory={"accumulation": 2})


def test_the_seconds_of_a_game_begun_elsewhere_are_unknown(arguments, tmp_path):
    table1.main(arguments)
    next((tmp_path / "work").rglob("generator.json")).unlink()  # as after an interrupted game, or one of another experiment
    step = next((tmp_path / "work").rglob("dsdh-clean-*.json"))
    step.write_text(json.dumps(json.loads(step.read_text()) | {"seconds": 700.0}))
    table1.main(arguments)
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    assert stored["runs"]["0"]["generator_seconds"] is None and stored["runs"]["0"]["seconds"] >= 700


def test_generators_can_be_shipped_and_taken_instead_of_playing(arguments, tmp_path, monkeypatch, capsys):
    shipped, result = tmp_path / "shipped", tmp_path / "out" / "table1-photos-eps0.3-fast.json"
    table1.main([*arguments, "--seeds", "0", "1", "--ship-generators", str(shipped)])
    played = json.loads(result.read_text())
    assert {path.name for path in shipped.iterdir()} == {"generator-0.safetensors", "generator-1.safetensors"}

    monkeypatch.setattr(games, "train_ppl", None)  # no game from here on
    elsewhere = [*arguments, "--seeds", "0", "1", "--generators", str(shipped)]
    table1.main([*elsewhere, "--ship", str(tmp_path / "again")])
    assert (tmp_path / "again" / "generator.safetensors").read_bytes() == (shipped / "generator-0.safetensors").read_bytes()
    adversarial = [path.parent.parent.name for path in (tmp_path / "work").rglob("adversarial/dsdh-16.safetensors")]
    assert sorted(name[:6] for name in adversarial) == ["seed0", "seed1", "taken-", "taken-"]  # it could be another generator
    taken = json.loads(result.read_text())
    assert taken["cells"] == played["cells"]
    for seed, run in taken["runs"].items():
        assert run["generator_seconds"] is None
        assert run["generator_commit"] == played["runs"][seed]["generator_commit"] != ""

    for changed, what in ((["--game", "beta=3"], "config .beta differ"), (["--epsilon", "0.2"], "config .epsilon differ")):
        with pytest.raises(ValueError, match=rf"generator-0.safetensors was made with another {what}.*leave out --generators"):
            table1.main([*elsewhere, *changed])
    (shipped / "generator-0.safetensors").write_bytes((shipped / "generator-1.safetensors").read_bytes())
    with pytest.raises(ValueError, match="made with another config .seed differ"):
        table1.main(elsewhere)
    (shipped / "generator-1.safetensors").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        table1.main(elsewhere)
    said = capsys.readouterr().err  # before seed 0 is refused
    assert "generator-1.safetensors: table1 --ship-generators writes them" in said


def test_games_can_be_judged_without_the_queries_and_their_generators_taken(arguments, tmp_path, monkeypatch, capsys):
    shipped = tmp_path / "shipped"
    table1.main([*arguments, "--validation", "12", "--ship-generators", str(shipped)])
    judged = json.loads((tmp_path / "out" / "validation" / "table1-photos-eps0.3-fast.json").read_text())
    assert judged["validation"] == judged["images"]["query"] == 12 and "12 validation queries" in judged["what"]
    split = table1.load(arguments[1], None, seed=0)
    key = json.loads(next((tmp_path / "work").rglob("adsh-adversarial-16.json")).read_text())["key"]
    assert key["split"] == split.validation(12, 0, keep_train=True).manifest

    with pytest.raises(SystemExit):
        table1.main([*arguments, "--validation", "12", "--ship", str(shipped)])
    assert "--ship is for victims that were judged on the queries" in capsys.readouterr().err

    monkeypatch.setattr(games, "train_ppl", None)  # no game from here on
    table1.main([*arguments, "--generators", str(shipped)])
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    assert stored["validation"] == 0 and stored["images"] == split.manifest["counts"] and stored["cells"] != judged["cells"]


def test_an_interrupted_run_goes_on_where_it_stopped(arguments, tmp_path, monkeypatch):
    fit, fitted = table1.fit_victim, []

    def fails_at_third(victim, split, train):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(type(victim).__name__)
        return fit(victim, split, train)

    monkeypatch.setattr(table1, "fit_victim", fails_at_third)
    with pytest.raises(KeyboardInterrupt):
        table1.main(arguments)
    again = []
    monkeypatch.setattr(table1, "fit_victim", lambda v, s, t: (again.append(type(v).__name__), fit(v, s, t))[1])
    table1.main(arguments)
    assert (fitted, again) == (["ADSH", "ADSH"], ["DSDH", "DSDH"])


def test_a_run_of_less_does_not_replace_a_stored_result(arguments, tmp_path, capsys):
    table1.main([*arguments, "--seeds", "0", "1"])
    path = tmp_path / "out" / "table1-photos-eps0.3-fast.json"
    before = path.read_bytes()
    with pytest.raises(SystemExit):
        table1.main(arguments)  # one seed
    assert "has seeds [1] that this run has not" in capsys.readouterr().err and path.read_bytes() == before
    another = Path(arguments[1].removeprefix("folder:")).parent / "another" / "photos"  # of the same name
    with pytest.raises(SystemExit):
        table1.main([*arguments, "--seeds", "0", "1", "--dataset", f"folder:{another}"])
    assert "was made with dataset folder:" in capsys.readouterr().err and path.read_bytes() == before


@pytest.mark.parametrize("entry, other", [("regime", "scatter"), ("backbone", "dense")])
def test_a_table_of_another_game_is_not_replaced(arguments, tmp_path, capsys, entry, other):
    table1.main(arguments)
    path = tmp_path / "out" / "table1-photos-eps0.3-fast.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: other}))  # as where that was the usual one
    with pytest.raises(SystemExit):
        table1.main(arguments)
    assert f"was made with {entry} {other}, this run has" in capsys.readouterr().err


def test_a_run_goes_on_on_another_device(arguments, tmp_path, monkeypatch):
    table1.main([*arguments, "--device", "cpu"])
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    next((tmp_path / "work").rglob("dsdh-adversarial-16.json")).unlink()  # its victim is kept, too
    monkeypatch.setattr(table1, "fit_victim", None)
    table1.main([*arguments, "--device", "cpu:0"])
    assert json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())["cells"] == stored["cells"]


def test_what_a_user_can_mend_is_said_in_a_line(tmp_path):
    words = ["--dataset", "folder:nowhere", "--epsilon", "0.1", "--fast", "--out", str(tmp_path), "--work", str(tmp_path)]
    ended = subprocess.run([sys.executable, "-m", "pplkit.experiments.ratio", *words], capture_output=True, text=True)
    assert ended.returncode == 2 and "nowhere" in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stderr.startswith("ratio: ")


def test_results_of_other_settings_are_not_mixed_in(arguments, tmp_path):
    table1.main(arguments)
    path = next((tmp_path / "work").rglob("adsh-clean-16.json"))
    stored = json.loads(path.read_text())
    stored["key"]["victim"]["gamma"] = 1.0
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="victim differ"):
        table1.main(arguments)


def test_shipped_files_are_the_first_seeds_without_database_codes(arguments, tmp_path):
    table1.main([*arguments, "--ship", str(tmp_path / "ship")])
    names = sorted(path.name for path in (tmp_path / "ship").iterdir())
    assert names == ["adsh-adversarial-16.safetensors", "adsh-clean-16.safetensors", "dsdh-adversarial-16.safetensors",
                     "dsdh-clean-16.safetensors", "generator.safetensors"]
    assert table1.load_victim(tmp_path / "ship" / "adsh-clean-16.safetensors").database_codes is None


def test_colour_images_other_networks_and_smaller_sets_have_places_of_their_own(photos, tmp_path):
    arguments = ["--dataset", f"folder:{photos}", "--epsilon", "0.1", "--bits", "8", "--fast", "--work", str(tmp_path / "work"),
                 "--out", str(tmp_path / "out"), "--device", "cpu"]
    table1.main([*arguments, "--backbone", "dense", "--load", "size=16", "channels=3", "query_share=0.2",
                 f"cache={tmp_path / 'cache'}"])
    assert [path.suffix for path in sorted((tmp_path / "cache").iterdir())] == [".json", ".uint8"]  # and no scratch file
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["table1-photos-dense-eps0.1-fast.json", "table1-photos-dense-eps0.1-fast.png"]
    stored = json.loads((tmp_path / "out" / names[0]).read_text())
    assert stored["generator"]["backbone"] == stored["victims_16_bits"]["dsdh"]["backbone"] == "dense"
    assert stored["load"] == {"size": 16, "channels": 3, "query_share": 0.2, "cache": str(tmp_path / "cache")}
    assert stored["images"] == {"train": 30, "query": 15, "database": 57}
    table1.main([*arguments, "--backbone", "dense", "--load", "size=16", "channels=3", "query_share=0.2", "--ship",
                 str(tmp_path / "ship")])
    assert len(list((tmp_path / "ship").iterdir())) == 5
    table1.main([*arguments, "--backbone", "dense", "--load", "size=16", "channels=3", "--out", str(tmp_path / "other")])
    games = [path.name for path in (tmp_path / "work" / "fast").glob("table1-*")]  # other images, other places
    assert len(games) == 2 and all(re.fullmatch(r"table1-photos-dense-load[0-9a-f]{6}-0.1", name) for name in games)
    assert len({json.loads(path.read_text())["key"]["split"]["sha256"]["train"]
                for path in (tmp_path / "work").rglob("generator.json")}) == 2


@pytest.mark.parametrize("text, expected", [
    ("train=40", ("train", 40)), ("share=0.5", ("share", 0.5)), ("cache=a=b", ("cache", "a=b")),
    ("code_lengths=8,12", ("code_lengths", (8, 12))), ("rates=1e-3,", ("rates", (0.001,))),
    ("cache=/a,b", ("cache", "/a,b")), ("classes=n02,n03", ("classes", ("n02", "n03"))),
    ("scaled=False", ("scaled", False)), ("widths=None", ("widths", None)),
    ("backbone=dense,resnet18@64:a/b.safetensors", ("backbone", ("dense", "resnet18@64:a/b.safetensors")))])
def test_settings_as_typed(text, expected):
    assert common.setting(text) == expected
    for wrong in ("train", "=4", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="must be NAME=VALUE"):
            common.setting(wrong)


def _row(method, train, task, codes, value, paper):
    return {"method": method, "train": train, "task": task, "bits": 16, "codes": codes, "mAP": value, "paper": paper}


def test_cells_are_compared_like_with_like():
    rows = [
        _row("adsh", "clean", "C->C", "learned", 0.90, 0.91),   # in-domain, within the tolerance: met
        _row("adsh", "clean", "C->C", "network", 0.75, 0.91),   # another protocol: not compared
        _row("dsdh", "clean", "A->A", "network", 0.35, 0.30),   # cross-domain, higher than the paper's: not met
        _row("dsdh", "adversarial", "A->A", "network", 0.60, 0.70),  # in-domain, lower: not met
        _row("dsdh", "adversarial", "C->C", "network", 0.15, 0.30),  # cross-domain, lower: met
    ]
    assert [(row["method"], row["task"], row["met"]) for row in table1.compared(rows)] == [
        ("adsh", "C->C", True), ("dsdh", "A->A", False), ("dsdh", "A->A", False), ("dsdh", "C->C", True)]
    assert table1.cross_domain_ratio(rows) == pytest.approx(0.5 / 0.6)


def test_the_same_key_is_computed_once(tmp_path):
    calls = []
    for _ in range(2):
        result = common.once(tmp_path / "a.json", lambda: calls.append(1) or {"value": 3}, {"seed": (1, 2)})
    assert calls == [1] and result["value"] == 3 and result["run"]["commit"]
    with pytest.raises(ValueError, match="seed differ"):
        common.once(tmp_path / "a.json", dict, {"seed": (1, 3)})


def test_a_setting_added_since_and_not_used_makes_no_difference(tmp_path):
    common.once(tmp_path / "a.json", lambda: {"value": 3}, {"game": {"steps": 2}})
    assert common.once(tmp_path / "a.json", dict, {"game": {"steps": 2, "new": None}})["value"] == 3
    with pytest.raises(ValueError, match="game differ"):
        common.once(tmp_path / "a.json", dict, {"game": {"steps": 2, "new": 0}})
    assert common.given({"victims": [{"eta": 1, "new": None}]}) == {"victims": [{"eta": 1}]}


@pytest.mark.parametrize("method", ["adsh", "dsdh"])
def test_victims_of_64_pixel_images_learn_at_a_smaller_rate(method):
    small, large = (common.make_victim(method, 16, 0, "cpu", dataset=name).settings() for name in ("cifar10", "imagenet13"))
    assert small["learning_rate"] == 1e-3 and large["learning_rate"] == 2e-4
    deep = common.make_victim(method, 16, 0, "cpu", backbone="resnet18", dataset="imagenet13").settings()
    assert deep["learning_rate"] == 2e-4 and common.DEEP_PASSES in deep.values()


def test_unknown_victim_and_missing_epsilon_are_refused():
    with pytest.raises(ValueError, match="'itq'"):
        common.make_victim("itq", 16, 0)
    with pytest.raises(ValueError, match="no epsilon for 'folder:x'"):
        games.configuration("folder:x", 0)
    with pytest.raises(ValueError, match="no epsilon for 'folder:x'"):
        games.configuration("folder:x", 0, regime="scatter")
    assert games.configuration("cifar10", 0, regime="scatter") == PPLConfig.scatter("cifar10")
    assert games.configuration("fashion-mnist", 0, 0.15).epsilon == 0.15


@pytest.mark.parametrize("typed", ["2", "inf", "1"])
def test_the_norm_can_be_given_as_typed(typed):
    game = dict([common.setting(f"norm={typed}")])
    assert games.configuration("fashion-mnist", 0, game=game).norm == typed
    json.dumps(game, allow_nan=False)  # the result says what was asked for


def test_fields_of_the_game_can_be_given(arguments, tmp_path):
    table1.main([*arguments, "--game", "code_lengths=8,4", "batch_size=16", "steps=900"])
    path, = (tmp_path / "out").glob("*.json")
    assert re.fullmatch(r"table1-photos-eps0.3-game[0-9a-f]{6}-fast.json", path.name)
    stored = json.loads(path.read_text())
    assert stored["game"] == {"code_lengths": [8, 4], "batch_size": 16, "steps": 900}
    used = stored["generator"]
    assert (used["code_lengths"], used["batch_size"], used["steps"]) == ([8, 4], 16, 10)  # --fast plays 10
    with pytest.raises(ValueError, match="cannot be given stepps: its fields are code_lengths, "):
        games.configuration("cifar10", 0, game={"stepps": 3})
    with pytest.raises(ValueError, match="backbone must be one network per surrogate, got 'dense': --backbone names one"):
        games.configuration("cifar10", 0, game={"backbone": "dense"})
    with pytest.raises(ValueError, match="cannot be given seed: .*arguments of their own"):
        games.configuration("cifar10", 0, game={"seed": 3})


def test_memory_that_runs_out_is_a_line_and_other_errors_come_as_they_are(capsys):
    def fails(error):
        raise error

    for error, said in ((MemoryError(), "out of memory"), (RuntimeError("CUDA out of memory. Tried to"), "CUDA out of memory")):
        with pytest.raises(SystemExit) as ended:
            common.command(lambda error=error: fails(error))
        assert ended.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="something else"):
        common.command(lambda: fails(RuntimeError("something else")))

"""pplkit.experiments.regimes: the log of what was tried, on validation queries only."""

import json

import pytest
import torch

from pplkit.config import PPLConfig
from pplkit.data import embedded, load
from pplkit.experiments import regimes


def test_every_regime_is_a_configuration():
    for changes in regimes.REGIMES.values():
        PPLConfig(epsilon=0.3, **changes)


def test_the_score_is_the_mean_over_victims_of_both_kinds_of_scenario():
    def of(*values):
        return {scenario: {"mAP": value} for scenario, value in zip(("C->C", "C->A", "A->C", "A->A"), values, strict=True)}

    row = {"rows": {"clean ADSH": of(0.8, 0.1, 0.2, 0.3), "adversarial ADSH": of(0.4, 0.2, 0.3, 0.6)}}
    assert regimes.score(row) == {"cross_domain": pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.2 + 0.3) / 6),
                                  "in_domain": pytest.approx((0.8 + 0.6) / 2)}


def test_a_short_split_keeps_the_training_images():
    split = load("fashion-mnist-mini").validation(200, 0)
    short = regimes._short(split, 500)
    assert 500 <= len(short.database) < len(split.database)
    assert torch.equal(short.database.images[short.train_index], split.train.images)
    assert torch.equal(short.database.labels[short.train_index], split.train.labels)
    assert short.manifest["counts"] == {part: len(getattr(short, part)) for part in ("train", "query", "database")}


def test_regimes_are_added_to_the_log(pictures, load_grey, tmp_path, monkeypatch):
    load_grey(regimes)
    path = tmp_path / "regimes-pictures-fast.json"
    path.write_text(json.dumps([{"regime": "an earlier one", "seed": 0, "epsilon": 0.3}]))
    arguments = ["--dataset", f"folder:{pictures}", "--fast", "--device", "cpu", "--work", str(tmp_path / "work"), "--out",
                 str(tmp_path), "--only", "scatter"]
    regimes.main(arguments)
    earlier, entry = json.loads(path.read_text())
    assert (earlier["regime"], entry["regime"]) == ("an earlier one", "scatter")
    assert entry["key"]["split"]["dataset"] == "folder:pictures/validation/short"
    assert entry["key"]["victims"][0]["outer_epochs"] == 2
    assert set(entry["rows"]) == {"clean ADSH", "clean DSDH", "adversarial ADSH", "adversarial DSDH"}
    assert entry["run"]["commit"] and 0 < entry["cross_domain"] <= 1

    def fails(*_args, **_kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(regimes, "fit_victim", fails)
    regimes.main(arguments)  # the clean-trained victims, too, are only trained where a step is missing
    assert json.loads(path.read_text()) == [earlier, entry]


def test_rows_of_one_commit_in_the_stored_log_were_judged_by_the_same_searchers():
    log = json.loads(embedded("results", "regimes-fashion-mnist.json").read_text())
    judges = {}  # C->C of clean-trained searchers has no generator in it
    for entry in log:
        judges.setdefault((entry["run"]["commit"], entry["seed"]), set()).add(
            tuple(entry["rows"][f"clean {method}"]["C->C"]["mAP"] for method in ("ADSH", "DSDH")))
    assert all(len(found) == 1 for found in judges.values())


def test_what_the_readme_says_of_frozen_surrogates():
    log = {entry["regime"]: entry for entry in json.loads(embedded("results", "regimes-fashion-mnist.json").read_text())}
    frozen, reference = log["frozen, 4 surrogates"], log["refresh 400 at 3e-5, 4 surrogates"]
    assert frozen["run"]["commit"] == reference["run"]["commit"]
    assert [round(entry["cross_domain"], 2) for entry in (frozen, reference)] == [0.24, 0.25]
    among = [sum(entry["rows"][f"clean {method}"]["A->A"]["mAP"] for method in ("ADSH", "DSDH")) / 2
             for entry in (frozen, reference)]
    assert [round(value, 2) for value in among] == [0.39, 0.34]

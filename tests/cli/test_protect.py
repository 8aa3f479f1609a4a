"""pplkit protect: what is typed, what is printed, what is returned."""

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from pplkit import cli
from pplkit.data import embedded
from pplkit.generator import PerturbationGenerator


def test_protect_says_what_it_did_and_where(photos, tmp_path, capsys):
    arguments = ["protect", str(photos), str(tmp_path / "out"), "--generator", "pretrained", "--epsilon", "26/255", "--quiet"]
    assert cli.main(arguments) == cli.DONE
    printed = capsys.readouterr()
    assert "40 protected, 0 done before, 0 failed; epsilon 0.102 (26/255), norm inf, pattern made at 28 pixels" in printed.out
    assert printed.err == ""
    assert len(list((tmp_path / "out").rglob("*.png"))) == 40 and (tmp_path / "out-report.csv").is_file()
    assert cli.main(arguments) == cli.DONE
    assert "0 protected, 40 done before" in capsys.readouterr().out


def test_the_pattern_is_made_at_the_size_of_the_training_images(photos, tmp_path, capsys):
    """Also with the generators of Table 1, whose files do not say it."""
    shipped = embedded("checkpoints", "fashion-mnist", "several", "generator-0.safetensors")
    assert "image_size" not in PerturbationGenerator.load(shipped).metadata
    assert cli.main(["protect", str(photos), str(tmp_path / "out"), "--generator", str(shipped), "--quiet"]) == cli.DONE
    assert "pattern made at 28 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "workers", "progress"), [
    (["--workers", "3"], 3, True), (["--workers", "1", "--quiet"], 1, False), ([], None, True)])
def test_protect_passes_workers_and_progress_on(photos, tmp_path, generator, monkeypatch, words, workers, progress):
    found = {}

    def protect_folder(*_, **options):
        found.update(options)
        raise ValueError("enough")

    monkeypatch.setattr(cli, "protect_folder", protect_folder)
    assert cli.main(["protect", str(photos), str(tmp_path / "out"), "--generator", str(generator), *words]) == cli.WRONG_USE
    assert found["progress"] is progress and found["workers"] >= 1 and workers in (None, found["workers"])


def test_a_progress_bar_counts_the_pictures(photos, tmp_path, generator, monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert cli.main(["protect", str(photos), str(tmp_path / "out"), "--generator", str(generator)]) == cli.DONE
    assert "protect: 100%" in capsys.readouterr().err


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


def test_a_report_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, generator, capsys):
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path / "closed")
    (tmp_path / "closed").mkdir()
    report = tmp_path / "closed" / "new" / "report.csv"
    words = ["protect", str(tmp_path / "in"), str(tmp_path / "out"), "--generator", str(generator), "--report", str(report)]
    assert cli.main(words) == cli.WRONG_USE
    assert f"cannot write the report {report}: give another place" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_generator_without_a_budget_needs_one(tmp_path, capsys):
    PerturbationGenerator(1, (4,)).save(tmp_path / "g.safetensors")
    (tmp_path / "in").mkdir()
    words = ["protect", str(tmp_path / "in"), str(tmp_path / "out"), "--generator", str(tmp_path / "g.safetensors")]
    assert cli.main(words) == cli.WRONG_USE and "give --epsilon" in capsys.readouterr().err
    assert cli.main([*words, "--epsilon", "0.1", "--quiet"]) == cli.DONE


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

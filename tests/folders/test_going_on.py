"""pplkit.folders: a run goes on where one ended, and never overwrites."""

import csv
import signal
import subprocess
import sys

import pytest
from folder_content import files, rows
from PIL import Image

from pplkit import folders, locks
from pplkit.generator import PerturbationGenerator


def test_a_second_call_keeps_what_is_done_and_adds_what_is_new(run, source, tmp_path):
    run()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    Image.new("L", (8, 8), 100).save(source / "new.png")
    result = run()
    assert (result.protected, result.kept, result.failed) == (1, 4, {})
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(rows(result.report)) == 5
    (tmp_path / "out" / "new.png").unlink()
    assert run().protected == 1


@pytest.mark.parametrize("change", ["epsilon", "source", "output", "report", "pattern_size", "generator"])
def test_what_is_not_the_wanted_result_is_refused_and_overwritten_by_force(run, source, tmp_path, change):
    run()
    options = {"epsilon": {"epsilon": 0.2}, "pattern_size": {"pattern_size": 4},
               "generator": {"generator": PerturbationGenerator(3, (4, 4))}}.get(change, {})
    if change == "source":
        Image.new("L", (30, 20), 9).save(source / "a.png")
    if change == "output":
        (tmp_path / "out" / "a.png").write_bytes(b"mine")
    if change == "report":
        (tmp_path / "out-report.csv").unlink()
    before = files(tmp_path / "out")
    result = run(**options)
    changed = 1 if change in ("source", "output") else 4
    assert len(result.failed) == changed and result.kept == 4 - changed
    assert all("exists and is not the result of this file and these settings" in why for why in result.failed.values())
    assert files(tmp_path / "out") == before
    assert rows(result.report)["a.png"]["status"] == "failed"
    forced = run(**options, force=True)
    assert (forced.failed, forced.protected, forced.kept) == ({}, changed, 4 - changed)
    assert files(tmp_path / "out") != before or change == "report"


def test_a_refused_call_leaves_what_is_known(run, source, tmp_path):
    frames = [Image.new("L", (6, 6), value) for value in (0, 90)]
    frames[0].save(source / "e.gif", save_all=True, append_images=frames[1:])
    first = run()
    known = rows(first.report)
    assert len(run(epsilon=0.2).failed) == 5
    with open(first.report, newline="", encoding="utf-8") as file:
        both = list(csv.DictReader(file))
    assert [row["status"] for row in both] == ["protected", "failed"] * 5 and [row for row in both[::2]] == list(known.values())
    again = run()
    assert (again.protected, again.kept, again.failed, again.notes) == (0, 5, {}, {"e.gif": "first of 2 frames"})
    assert rows(again.report) == known
    assert len(again.report.read_text().splitlines()) == 6  # the failures are forgotten once they are none


def test_what_is_published_stays_in_the_report_without_its_original(run, source, tmp_path):
    run()
    known = rows(tmp_path / "out-report.csv")
    (source / "a.png").rename(tmp_path / "a.png")
    result = run()
    assert (result.protected, result.kept, result.failed) == (0, 3, {}) and rows(result.report) == known
    (tmp_path / "a.png").rename(source / "a.png")
    assert run().kept == 4
    (source / "a.png").unlink()
    Image.new("L", (8, 8), 90).save(source / "a.bmp")  # takes its place
    assert run(force=True).failed == {}
    assert "a.png" not in rows(result.report) and rows(result.report)["a.bmp"]["output"] == "a.png"
    (source / "b.jpg").unlink()
    (tmp_path / "out" / "b.png").unlink()
    assert "b.jpg" not in rows(run().report)


def test_what_was_done_is_known_again_when_a_clash_or_a_link_is_gone(run, source, tmp_path):
    run()
    Image.new("L", (9, 9)).save(source / "b.PNG")
    (source / "a.png").rename(tmp_path / "a.png")
    (source / "a.png").symlink_to(tmp_path / "a.png")
    assert set(run().failed) == {"a.png", "b.jpg", "b.PNG"}
    (source / "b.PNG").unlink()
    (source / "a.png").unlink()
    (tmp_path / "a.png").rename(source / "a.png")
    assert run().kept == 4
    (source / "sub").rename(tmp_path / "sub")
    (source / "sub").symlink_to(tmp_path / "sub")  # a folder, with all that is in it
    assert "sub" in run().failed
    (source / "sub").unlink()
    (tmp_path / "sub").rename(source / "sub")
    assert run().kept == 4


def test_an_interrupted_run_goes_on(run, tmp_path, monkeypatch):
    whole = run(target=tmp_path / "whole")
    publish, done = folders._publish, []

    def stops_at_third(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return publish(*arguments)

    monkeypatch.setattr(folders, "_publish", stops_at_third)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(files(tmp_path / "out")) == 2  # complete files only, nothing temporary
    with open(tmp_path / "out-report.csv", "a") as file:
        file.write('sub/c.bmp,protected,"torn')  # as a crash may leave it
    monkeypatch.setattr(folders, "_publish", publish)
    result = run()
    assert (result.protected, result.kept, result.failed) == (2, 2, {})
    assert files(tmp_path / "out") == files(tmp_path / "whole") and rows(result.report) == rows(whole.report)


def test_what_a_killed_run_leaves_is_removed_but_not_from_under_a_live_one(run, tmp_path):
    out = tmp_path / "out"
    program = ("import sys, time; from pathlib import Path; from pplkit import locks\n"
               "with locks.scratch(Path(sys.argv[1])) as scratch:\n"
               "    (scratch / '3.png').write_bytes(b'half'); print('ready', flush=True); time.sleep(60)")
    out.mkdir()
    live = subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert live.stdout.readline() == "ready\n"
        scratch, = out.glob(".pplkit-*")
        assert run().protected == 4 and (scratch / "3.png").read_bytes() == b"half"
    finally:
        live.send_signal(signal.SIGKILL)
        live.communicate(timeout=60)
    assert scratch.is_dir()
    assert run().kept == 4 and not scratch.exists()
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_only_folders_of_our_own_kind_are_removed(run, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    for folder in (out / ".pplkit-theirs", out / ".pplkit-deep" / "0.png", out / ".pplkit-empty", out / ".other", elsewhere):
        folder.mkdir(parents=True)
    (out / ".pplkit-theirs" / "notes.txt").write_text("x")
    (out / ".pplkit-file").write_text("x")
    (elsewhere / "0.png").write_bytes(b"precious")
    (out / ".pplkit-link").symlink_to(elsewhere)
    run()
    assert {path.name for path in out.iterdir() if path.name.startswith(".")} == {
        ".pplkit-theirs", ".pplkit-deep", ".other", ".pplkit-file", ".pplkit-link"}
    assert (elsewhere / "0.png").read_bytes() == b"precious"


def test_without_locks_nothing_is_removed(run, tmp_path, monkeypatch):
    (tmp_path / "out" / ".pplkit-left").mkdir(parents=True)
    monkeypatch.setattr(locks, "fcntl", None)
    assert run().protected == 4
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == [".pplkit-left"]


def test_a_crash_before_the_picture_is_in_place_is_made_good(run, tmp_path):
    """The row is written first: a row without its picture counts for nothing."""
    run()
    (tmp_path / "out" / "b.png").unlink()
    assert run().protected == 1 and run().kept == 4


def test_a_file_that_appears_meanwhile_is_not_overwritten(run, tmp_path, monkeypatch):
    move = folders._move_without_overwriting

    def somebody_is_faster(temporary, place):
        if place.name == "b.png":
            place.write_bytes(b"theirs")
        move(temporary, place)

    monkeypatch.setattr(folders, "_move_without_overwriting", somebody_is_faster)
    result = run()
    assert list(result.failed) == ["b.jpg"] and (tmp_path / "out" / "b.png").read_bytes() == b"theirs"


def test_without_hard_links_nothing_is_overwritten_either(run, tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(folders.os, "link", no_links)
    assert run().protected == 4
    (tmp_path / "t").write_bytes(b"new")
    with pytest.raises(FileExistsError):
        folders._move_without_overwriting(tmp_path / "t", tmp_path / "out" / "a.png")

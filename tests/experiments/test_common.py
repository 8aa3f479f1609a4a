"""Arguments of every experiment: continuing, and starting anew without losing what is there."""

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

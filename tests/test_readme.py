"""Every command and every line of Python in the README works, and every command of the page with all results."""

import importlib
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pplkit import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "data" / "results" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README + RESULTS, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS += re.findall(r"\| `(python -m pplkit\.experiments\.[^`]+)` \|", RESULTS)  # how each figure was made
TARGETS = set(re.findall(r"`make ([\w-]+)", README)) | {command.split()[1] for command in COMMANDS if "make " in command}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_make_knows_the_target(target):
    """CI runs `make test` itself; here make resolves every target without running it."""
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if "python -m" in c])
def test_experiments_accept_the_arguments(command, capsys):
    """The long runs are parsed, not run: `--help` behind the arguments ends them after the parsing of their names."""
    _, _, module, *words = shlex.split(command)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main([*words, "--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in help_text


def test_python_blocks_and_the_command_run_as_printed_but_for_their_length(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(random.integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(tmp_path / "photos" / label / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        assert "steps=800" in block
        namespace: dict = {}
        exec(block.replace("steps=800", "warmup_steps=2, steps=2"), namespace)
        protected, clean = namespace["protected"], namespace["split"].database.images
        assert protected.shape == clean.shape
        assert (protected.int() - clean.int()).abs().max() <= 25
    typed = [shlex.split(command) for command in COMMANDS if command.startswith(".venv/bin/pplkit ")]
    shorter = {"train": ["--warmup-steps", "2", "--steps", "2"], "protect": [], "evaluate": ["--fast"]}
    assert [words[1] for words in typed] == list(shorter)
    for words in typed:
        assert cli.main([*words[1:], "--quiet", *shorter[words[1]]]) == 0
    printed = capsys.readouterr().out
    assert "60 protected, 0 done before, 0 failed" in printed and "A->C" in printed
    assert {path.name for path in tmp_path.iterdir()} == {
        "photos", "photos-protected", "photos-protected-report.csv", "photos-evaluation.json", "generator.safetensors"}


@pytest.mark.parametrize(("text", "folder"), [(README, ROOT), (RESULTS, ROOT / "data" / "results")])
def test_every_link_leads_somewhere(text, folder):
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
        assert (folder / target).exists(), target

"""Set-up: the files that describe the environment agree, the messages are clear, the wheel is complete."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import setup_environment as setup
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text) for part in (PROJECT["project"]["dependencies"], *EXTRAS.values()) for text in part
]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


class TestAgreement:
    def test_every_pin_is_exact_and_unique(self):
        names = [canonicalize_name(pin.name) for pin in PINS]
        assert len(names) == len(set(names))
        assert all([spec.operator for spec in pin.specifier] == ["=="] for pin in PINS)

    @pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
    def test_every_range_holds_its_tested_version(self, requirement: Requirement):
        pins = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        assert len(pins) == 1, f"{requirement.name} has no pin in constraints.txt"
        (pinned,) = pins[0].specifier
        assert pinned.version in requirement.specifier
        assert all(spec.operator == ">=" for spec in requirement.specifier), "a range with a lower end"

    def test_torch_and_its_partner(self):
        pinned = {pin.name: str(pin.specifier) for pin in PINS}
        assert (pinned["torch"], pinned["torchvision"]) == ("==2.15.0", "==0.29.2")
        assert "2.11" in next(entry.specifier for entry in REQUIREMENTS if entry.name == "torch")

    def test_every_dependency_says_why(self):
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        listed = re.findall(r'^    "([a-z][\w-]*[^"]*)",(.*)$', text, re.MULTILINE)
        reasons = {requirement: comment.strip() for requirement, comment in listed}
        for part in (PROJECT["project"]["dependencies"], *EXTRAS.values()):
            for requirement in part:
                assert re.match(r"# [\w`]", reasons[requirement]), f"no reason beside {requirement}"

    def test_conda_installs_the_same(self):
        environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
        assert environment["name"] == PROJECT["project"]["name"]
        *conda, by_pip = environment["dependencies"]
        assert conda == [f"python{PROJECT['project']['requires-python']}", "pip"]
        assert by_pip == {"pip": ["--constraint constraints.txt", f"--editable .[{','.join(EXTRAS)}]"]}

    def test_pythons(self):
        oldest = PROJECT["project"]["requires-python"]
        assert oldest == ">=" + ".".join(map(str, setup.OLDEST_PYTHON))
        workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
        tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
        assert tested == ["3.11", "3.12", "3.13"] and all(
            version in SpecifierSet(oldest) for version in tested
        )
        for version in tested:
            assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]

    def test_continuous_integration_runs_what_a_user_runs(self):
        workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
        commands = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
        assert commands == ["make test", "make run"]
        script = ROOT / ".ci" / "run"
        assert os.access(script, os.X_OK)
        assert script.read_text(encoding="utf-8").strip().splitlines()[-1] == "make test"

    def test_licence(self):
        text = (ROOT / "LICENSE").read_text(encoding="utf-8")
        assert PROJECT["project"]["license"] == "Apache-2.0"
        assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text

    def test_every_package_is_declared(self):
        found = {
            ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "pplkit").rglob("__init__.py")
        }
        assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"pplkit._data"}


class TestMakefile:
    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True)

    def test_help_is_the_default_and_lists_every_target(self):
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
        shown = self.run().stdout
        assert shown == self.run("help").stdout
        assert set(targets) - {"help"} == set(re.findall(r"^make ([a-z-]+) ", shown, re.MULTILINE))

    def test_missing_python(self):
        done = self.run("setup", "PYTHON=no-such-python")
        assert done.returncode != 0 and "no 'no-such-python' on this machine" in done.stderr

    def test_only_a_chosen_python_is_reported_as_chosen(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("PYTHON", raising=False)
        assert "--chosen" not in self.run("-n", "setup").stdout
        assert "--chosen" in self.run("-n", "setup", f"PYTHON={sys.executable}").stdout


class TestMessages:
    def test_python_too_old(self):
        with pytest.raises(
            setup.SetupProblem, match=r"3\.9\.2 \(/usr/bin/python3\) is too old.*3\.11"
        ) as caught:
            setup.check_python((3, 9, 2), "/usr/bin/python3", [])
        assert "PYTHON=" in str(caught.value)
        with pytest.raises(setup.SetupProblem, match=r"make run PYTHON=python3\.13"):
            setup.check_python((2, 7, 18), "python", ["python3.13", "python3.11"])
        setup.check_python((3, 11, 0), "python3", [])

    def test_newer_pythons_are_found_newest_first(self, tmp_path: Path):
        for name, status in (("python3.9", 0), ("python3.11", 0), ("python3.12", 1), ("python3.13", 0)):
            (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
            (tmp_path / name).chmod(0o755)
        assert setup.newer_pythons(f"{os.pathsep}{tmp_path}") == ["python3.13", "python3.11"]

    def test_venv_module_missing(self):
        with pytest.raises(
            setup.SetupProblem, match=r"no module ensurepip.*\n.*apt install python3\.12-venv"
        ):
            setup.check_venv_module(["ensurepip"], (3, 12, 1))
        assert setup.missing_modules(("json", "no_such_module")) == ["no_such_module"]

    def test_too_little_disk(self):
        with pytest.raises(
            setup.SetupProblem, match=r"2\.5 GiB free for /disk, about 9\.0 GiB needed"
        ) as caught:
            setup.check_disk(2.5, setup.INSTALL_GIB, "/disk")
        assert "VENV=" in str(caught.value) and "MIN_DISK_GIB=" in str(caught.value)
        setup.check_disk(9.1, setup.INSTALL_GIB, "/disk")

    def test_disk_is_checked_before_anything_is_made(self, tmp_path: Path):
        with pytest.raises(setup.SetupProblem, match="Too little disk space"):
            setup.set_up(str(checkout(tmp_path)), str(tmp_path / "venv"), chosen=False, minimum_gib=1e9)
        assert not (tmp_path / "venv").exists()

    def test_folder_that_is_no_environment_is_left_alone(self, tmp_path: Path):
        (tmp_path / "home").mkdir()
        precious = tmp_path / "home" / "thesis.tex"
        precious.touch()
        with pytest.raises(setup.SetupProblem, match="not a virtual environment"):
            setup.set_up(str(checkout(tmp_path)), str(tmp_path / "home"), chosen=False, minimum_gib=0)
        assert precious.exists()

    def test_old_pythons_can_parse_the_script(self):
        source = (ROOT / "tools" / "setup_environment.py").read_text(encoding="utf-8")
        tree = ast.parse(source, feature_version=(3, 6))
        assert source.isascii() and "from __future__ import print_function" in source
        for node in ast.walk(tree):
            assert not isinstance(
                node, (ast.JoinedStr, ast.AnnAssign, ast.Nonlocal, ast.NamedExpr, ast.Starred)
            )
            if isinstance(node, ast.FunctionDef):
                assert node.returns is None and not node.args.kwonlyargs
        imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert imported == {"argparse", "hashlib", "os", "subprocess", "sys"}


def checkout(folder: Path) -> Path:
    """A minimal checkout: what the environment's stamp is made of."""
    root = folder / "checkout"
    root.mkdir(exist_ok=True)
    (root / "pyproject.toml").write_text("")
    (root / "constraints.txt").write_text("setuptools==84.2.1\n")
    return root


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A checkout and the place of its environment, in a folder with a blank, as in "My Documents"."""
    folder = tmp_path_factory.mktemp("set up")
    return str(checkout(folder)), str(folder / "venv")


class TestSetUp:
    """With one real virtual environment, pip replaced where it would install."""

    @pytest.fixture
    def pip(self, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        calls: list[list[str]] = []
        monkeypatch.setattr(setup, "run_pip", lambda python, arguments, root, venv: calls.append(arguments))
        return calls

    @pytest.mark.parametrize("retries", ["0", "1"])
    def test_no_network(self, places, monkeypatch: pytest.MonkeyPatch, retries: str):
        index = "http://127.0.0.1:9/simple"  # the discard port: nothing answers there
        settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "PIP_RETRIES": retries}
        for name in list(os.environ):
            if name.startswith("PIP_") or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(setup.SetupProblem, match="could not reach its package index") as caught:
            setup.set_up(*places, chosen=False, minimum_gib=0)
        assert "HTTPS_PROXY" in str(caught.value) and setup.LOG in str(caught.value)
        assert not os.path.exists(os.path.join(places[1], setup.STAMP))

    def test_second_call_installs_nothing(self, places, pip):
        assert setup.set_up(*places, chosen=False, minimum_gib=0) is True
        assert [arguments[-1] for arguments in pip] == ["setuptools==84.2.1", ".[course,dev]"]
        pip.clear()
        assert setup.set_up(*places, chosen=True, minimum_gib=1e9) is False
        assert pip == []

    @pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
    def test_changed_file_installs_again(self, places, pip, name: str):
        setup.set_up(*places, chosen=False, minimum_gib=0)
        pip.clear()
        with open(os.path.join(places[0], name), "a") as handle:
            handle.write("# changed\n")
        assert setup.set_up(*places, chosen=False, minimum_gib=0) is True
        assert len(pip) == 2

    def test_failed_install_leaves_no_stamp(self, places, pip, monkeypatch: pytest.MonkeyPatch):
        def fail(*arguments):
            raise setup.SetupProblem("pip failed")

        with open(os.path.join(places[0], "constraints.txt"), "a") as handle:
            handle.write("# again\n")
        with monkeypatch.context() as patch:
            patch.setattr(setup, "run_pip", fail)
            with pytest.raises(setup.SetupProblem, match="pip failed"):
                setup.set_up(*places, chosen=False, minimum_gib=0)
        assert setup.set_up(*places, chosen=False, minimum_gib=0) is True

    def test_other_python_asked_for(self, places, pip, monkeypatch: pytest.MonkeyPatch):
        setup.set_up(*places, chosen=False, minimum_gib=0)
        monkeypatch.setattr(setup, "installed_version", lambda venv: (3, 99))
        with pytest.raises(setup.SetupProblem, match=r"made with Python 3\.99, you asked for"):
            setup.set_up(*places, chosen=True, minimum_gib=0)

    def test_half_made_environment_is_made_again(self, places, pip):
        setup.set_up(*places, chosen=False, minimum_gib=0)
        packages = Path(places[1], "lib", "python{}.{}".format(*sys.version_info), "site-packages")
        shutil.rmtree(packages / "pip")
        assert setup.installed_version(places[1]) is None
        pip.clear()
        assert setup.set_up(*places, chosen=False, minimum_gib=0) is True
        assert setup.installed_version(places[1]) == sys.version_info[:2] and len(pip) == 2

    def test_main_prints_the_problem(self, capsys, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(setup, "OLDEST_PYTHON", (99, 0))
        assert setup.main([]) == 2
        assert "Cannot set up: Python 3." in capsys.readouterr().err

    def test_pip_failure_shows_its_last_lines(self, places):
        with pytest.raises(setup.SetupProblem, match=r"pip failed \(status \d+\)") as caught:
            setup.run_pip(sys.executable, ["no-such-command"], *places)
        assert "no-such-command" in str(caught.value)


def test_wheel_holds_the_embedded_images(tmp_path: Path):
    """Built from a copy, because setuptools leaves files behind where it builds."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pplkit", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", *filter(None, [PROJECT["project"].get("readme")])):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("pplkit-*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    program = (
        "import pplkit, pplkit.data as data\n"
        f"assert pplkit.__file__.startswith({str(installed)!r}), pplkit.__file__\n"
        "split = data.load('fashion-mnist-mini')\n"
        "print(len(split.database), len(split.train), len(split.query))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=installed, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["10000", "4000", "1000"]


def test_importing_the_package_is_light():
    heavy = "matplotlib", "ipywidgets", "pandas", "IPython"
    program = f"import sys, pplkit; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert importlib.util.find_spec("matplotlib") is not None

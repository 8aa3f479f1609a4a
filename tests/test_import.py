"""The package as a whole: imports go one way, `import pplkit` is light, nothing depends on where or after what it runs."""

import ast
import doctest
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pplkit

ROOT = Path(pplkit.__file__).parent
MODULES = {
    ".".join(("pplkit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if "_data" not in path.parts
}
# Each layer may import itself and what stands above it. A package stands for its modules.
LAYERS = [
    {"pplkit", "storage", "locks", "device", "processes", "progress", "preconditions", "distance_counts"},
    {"splits", "sources", "colour_sources", "decoding", "data", "budget", "backbones"},
    {"paper", "generator", "gradient_reversal", "losses", "hashing", "retrieval"},
    {"config", "game", "checkpoints", "training", "scenarios", "pretrained"},
    {"experiments", "plots", "quality", "sweep", "picture", "prediction", "widgets", "explorer", "checks", "photos",
     "folders", "cli"},
]
HEAVY = {"matplotlib", "ipywidgets", "IPython", "jupyterlab", "pandas", "sklearn", "skimage", "torchmetrics"}
CORE = [name for name in MODULES if name.split(".")[1:2] and name.split(".")[1] not in LAYERS[-1]]


def layer(module: str) -> int:
    name = module.split(".")[1] if "." in module else module
    return next(i for i, names in enumerate(LAYERS) if name in names)


def statements(tree: ast.AST):
    """All nodes of a module but those that only the type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from statements(node)


def imports(module: str) -> set[str]:
    """Full names of what a module imports, modules of pplkit as far down as they are modules."""
    found = set()
    for node in statements(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def test_every_module_has_its_layer():
    homeless = [name for name in MODULES if not any(name.split(".")[1:2] == [n] for names in LAYERS for n in names)]
    assert homeless == ["pplkit"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    upward = [name for name in imports(module) if name in MODULES and layer(name) > layer(module)]
    assert upward == []


def test_no_module_imports_itself_by_a_detour():
    graph = {module: {name for name in imports(module) if name in MODULES} - {module} for module in MODULES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("module", CORE)
def test_the_core_needs_no_plots_and_no_widgets(module):
    assert {name.split(".")[0] for name in imports(module)} & HEAVY == set()


def loaded_after(*modules: str) -> set[str]:
    code = "; ".join(["import sys", *(f"import {name}" for name in modules), "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_pplkit_is_light():
    assert loaded_after("pplkit") & (HEAVY | {"torch", "numpy"}) == set()


def test_the_whole_core_loads_no_plots_no_widgets_and_no_torchvision():
    loaded = loaded_after(*CORE)
    assert "torch" in loaded and loaded & (HEAVY | {"torchvision"}) == set()


@pytest.mark.parametrize("module", MODULES)
def test_nothing_reads_the_working_directory_or_seeds_for_everybody(module):
    calls = [ast.unparse(n.func) for n in statements(ast.parse(MODULES[module].read_text())) if isinstance(n, ast.Call)]
    forbidden = ("cwd", "getcwd", "chdir", "curdir", "torch.manual_seed", "cuda.manual_seed_all", "random.seed")
    assert [call for call in calls if call.endswith(forbidden)] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_file_has_no_more_than_400_lines(module):
    assert len(MODULES[module].read_text().splitlines()) <= 400


@pytest.mark.parametrize("module", [name for name in MODULES if ">>>" in MODULES[name].read_text()])
def test_examples_in_docstrings_are_true(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0 and result.failed == 0

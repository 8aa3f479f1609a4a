# Two commands matter: `make run` executes the whole course, `make test` checks everything.
# Both set up what they need first; a second call installs nothing again.

PYTHON ?= python3
VENV   ?= .venv
# Names of notebooks for `make run` and `make refresh`, e.g. NB="08 09"; all of them when empty.
NB     ?=
# More arguments for JupyterLab, e.g. LAB_FLAGS="--no-browser --port 9000".
LAB_FLAGS ?=
# More arguments for the explorer's server, e.g. EXPLORER_FLAGS="--no-browser --port 9000".
EXPLORER_FLAGS ?=

# Processes for `make test`, each with its share of the tests and one thread; 0: one after the other, in this process.
WORKERS ?= auto

PY := $(abspath $(VENV))/bin/python
PYTEST = $(if $(filter-out 0,$(WORKERS)),OMP_NUM_THREADS=1) "$(PY)" -m pytest -n $(WORKERS) --dist loadscope
SETUP_FLAGS := --venv "$(abspath $(VENV))" $(if $(filter file default undefined,$(origin PYTHON)),,--chosen) \
	$(if $(MIN_DISK_GIB),--min-disk-gib $(MIN_DISK_GIB))

.DEFAULT_GOAL := help
.PHONY: help setup run test test-quick test-gpu lab explorer site refresh student clean distclean

help:  ## this list
	@echo "make run         execute every notebook, write them and their HTML to build/ (NB=\"08 09\" for some)"
	@echo "make test        lint, unit tests, all notebooks against their stored outputs"
	@echo "make test-quick  lint and unit tests only, without notebooks and browser"
	@echo "make test-gpu    on a machine with a GPU: does it what the CPU does?"
	@echo "make lab         open the course in JupyterLab"
	@echo "make explorer    serve notebook 10 with its ε explorer as an app, on this machine only"
	@echo "make site        write the course as web pages to build/site, readable without a network"
	@echo "make refresh     re-execute the notebooks in place and store clean outputs (NB=09 for one)"
	@echo "make student     write the student edition and the instructor's answer key to build/"
	@echo "make setup       only make the virtual environment $(VENV)"
	@echo "make clean       remove build/ and caches"
	@echo "make distclean   clean, and remove $(VENV)"
	@echo "Options: PYTHON=python3.12  VENV=/other/place  MIN_DISK_GIB=2  LAB_FLAGS=--no-browser  WORKERS=1"

setup:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
		echo "Cannot set up: no '$(PYTHON)' on this machine. Install Python 3.11 or newer," \
		     "or name yours: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" tools/setup_environment.py $(SETUP_FLAGS)

run: setup
	@"$(PY)" tools/run_notebooks.py $(NB)

test: setup
	"$(PY)" -m ruff check .
	$(PYTEST)

test-quick: setup
	"$(PY)" -m ruff check .
	$(PYTEST) -m "not notebooks and not browser"

test-gpu: setup
	PPLKIT_TEST_DEVICE=cuda "$(PY)" -m pytest tests/gpu

lab: setup
	@"$(PY)" -m jupyterlab --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_FLAGS)

explorer: setup
	@"$(PY)" tools/serve_explorer.py $(EXPLORER_FLAGS)

site: setup
	@"$(PY)" tools/build_site.py

refresh: setup
	@"$(PY)" tools/refresh_notebooks.py $(NB)

student: setup
	@"$(PY)" tools/student_edition.py $(NB)

clean:
	rm -rf build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name '.venv*' -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

distclean: clean
	@if [ -d "$(VENV)" ] && [ ! -f "$(VENV)/pyvenv.cfg" ]; then \
		echo "$(VENV) is not a virtual environment: not removed" >&2; exit 2; fi
	rm -rf "$(VENV)"

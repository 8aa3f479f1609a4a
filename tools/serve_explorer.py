"""Serve notebook 10 as an app: text and the live ε explorer, no code (`make explorer`).

Voilà listens on this machine's loopback address only and loads nothing from a network. Every visitor gets a kernel of
their own, which runs the whole notebook first; that takes as long as in JupyterLab.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import notebook_rules as rules

# They expect a whole JupyterLab around them, and log errors without.
NOT_LOADED = ("@jupyter-notebook/lab-extension", "@jupyter/nbgrader", "@voila-dashboards/jupyterlab-preview")
TEMPLATES = Path(__file__).resolve().parent / "jupyter"


def environment(scratch: Path) -> dict[str, str]:
    """Environment variables of the server: those of every headless run, and where its template is."""
    chosen = rules.notebook_environment(scratch)
    return {**chosen, "JUPYTER_PATH": os.pathsep.join([str(TEMPLATES), chosen["JUPYTER_PATH"]])}


def command(notebook: Path, port: int, browser: bool) -> list[str]:
    """What runs Voilà."""
    denied = [f"--VoilaConfiguration.extension_denylist={name}" for name in NOT_LOADED]
    return [sys.executable, "-m", "voila", str(notebook), "--Voila.ip=127.0.0.1", f"--port={port}", "--Voila.port_retries=0",
            "--template=pplkit", *denied, *([] if browser else ["--no-browser"])]


def main(arguments: list[str] | None = None) -> int:
    """Command line; runs until it is interrupted, exit status that of the server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebook", type=Path, default=rules.course_notebooks(names=["10"])[0], help="the notebook to serve")
    parser.add_argument("--port", type=int, default=8866, help="port on the loopback address")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    options = parser.parse_args(arguments)
    if not options.notebook.is_file():
        parser.error(f"no notebook {options.notebook}")
    print(f"Open http://127.0.0.1:{options.port}/ (end with Ctrl-C). The page appears when the notebook has run.", flush=True)
    with tempfile.TemporaryDirectory(prefix="pplkit-explorer-") as scratch:
        os.environ.update(environment(Path(scratch)))
        try:
            return subprocess.call(command(options.notebook.resolve(), options.port, not options.no_browser))
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())

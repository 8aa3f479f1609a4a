"""tests/conftest.py: which tests share a process when pytest-xdist deals them out, and what the end of a run says."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = ["00_start_here", "01_hashing_basics", "02_deep_hashing_victims", "03_adversarial_queries"]
BODY = f"""
import os, time, pytest

def run(path, layer, record_property):
    time.sleep(0.1)  # long enough for the other process to ask for work
    record_property("process", os.getpid())
    record_property("seconds", [path, layer, 1.5])

@pytest.mark.parametrize("path", {NAMES})
def test_strict(path, record_property):
    run(path, "strict", record_property)

@pytest.mark.parametrize("path", {NAMES})
def test_fast(path, record_property):
    run(path, "fast", record_property)
"""


@pytest.mark.parametrize("processes", [0, 2])
def test_what_belongs_together_shares_a_process_and_the_times_arrive(tmp_path, processes):
    for place in ("notebooks/test_course.py", "browser/test_live.py", "browser/test_site.py", "test_processes.py"):
        path = tmp_path / "tests" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BODY if "course" in place else BODY.replace(str(NAMES), "['page']").replace("seconds", "-"))
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {HERE.parent / 'tools'}\naddopts = --import-mode=importlib\n")
    (tmp_path / "tests" / "conftest.py").write_text((HERE / "conftest.py").read_text(encoding="utf-8"))
    report = tmp_path / "report.xml"
    done = subprocess.run([sys.executable, "-m", "pytest", "-n", str(processes), "--dist", "loadscope", f"--junitxml={report}"],
                          cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(HERE.parent)}, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout
    ran: dict[str, set] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        shared = [group for group in ("browser", "test_processes") if group in case.get("classname")]
        group = (shared or [name for name in NAMES if name in case.get("name")])[0]
        ran.setdefault(group, set()).add(case.find("properties/property[@name='process']").get("value"))
    assert set(ran) == {"browser", "test_processes", *NAMES} and all(len(found) == 1 for found in ran.values())
    assert len(set.union(*ran.values())) == max(1, processes)
    assert all(f"{name:<32}      1.5     1.5" in done.stdout for name in NAMES)

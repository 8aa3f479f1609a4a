"""The tests of a GPU, on every machine: on a device that is not the CPU (`tests/gpu/elsewhere.py`)."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_all_that_a_gpu_is_asked_for_runs_on_a_device_that_is_not_the_cpu():
    ended = subprocess.run([sys.executable, "-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider"], cwd=ROOT, text=True,
                           env=os.environ | {"PPLKIT_TEST_DEVICE": "elsewhere"}, capture_output=True)
    assert ended.returncode == 0, ended.stdout[-8000:]
    assert int(re.search(r"(\d+) passed", ended.stdout)[1]) > 30

"""The tests of a GPU, on every machine: on a device that is not the CPU (`tests/gpu/elsewhere.py`)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.skipif(not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
                                reason="this torch cannot have a device in pure Python")


def test_all_that_a_gpu_is_asked_for_runs_on_a_device_that_is_not_the_cpu():
    ended = subprocess.run([sys.executable, "-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider"], cwd=ROOT, text=True,
                           env=os.environ | {"PPLKIT_TEST_DEVICE": "elsewhere"}, capture_output=True)
    assert ended.returncode == 0, ended.stdout[-8000:]
    assert int(re.search(r"(\d+) passed", ended.stdout)[1]) > 30


def test_operations_do_not_mix_devices_there():
    """Else the test above would find nothing."""
    program = """
import elsewhere, torch
kept = elsewhere.register()
with elsewhere.present():
    there, here, one = torch.ones(2, device="elsewhere"), torch.ones(2), torch.tensor([1])
    assert (there + 1).tolist() == [2, 2] and there.cpu().numpy().sum() == 2 and there[one].device == there.device
    with torch.autocast("elsewhere", torch.bfloat16):
        assert (there @ there).dtype == torch.bfloat16 and (there * there).dtype == torch.float32
    network = torch.nn.Linear(2, 1).to("elsewhere")
    network(there).sum().backward()
    assert network.weight.grad.device == there.device
    number = torch.tensor(1.0)
    there[one] = number  # as CUDA does
    mixing = [lambda: there + here, lambda: here[one.to("elsewhere")], lambda: network(here),
              lambda: there.index_put_((one,), here[:1]),
              lambda: number.add_(there.sum()), lambda: torch.stack([there.sum(), number]), lambda: torch.cat([there, here])]
    others = {"can't convert": lambda: there.numpy(), "Expected a 'elsewhere' device type for generator":
              lambda: torch.rand(2, device="elsewhere", generator=torch.Generator()),
              "is not implemented for torch.int32": lambda: there.int()[None] @ there.int()[:, None]}
    for said, wrong in [*(("Expected all tensors to be on the same device", call) for call in mixing), *others.items()]:
        try:
            wrong()
        except (RuntimeError, TypeError) as error:
            assert said in str(error), (said, error)
        else:
            raise SystemExit(f"no error: {said}")
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "tests" / "gpu", capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

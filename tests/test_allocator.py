"""Memory that stays with the process: in processes of their own, since it cannot be undone."""

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import os, resource, sys
import torch
from nas2edge.supernet.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
assert "THP_MEM_ALLOC_ENABLE" not in os.environ
torch.set_num_threads(1)

def step():
    return torch.ones(40 << 20)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    found = subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], check=True, capture_output=True, text=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again_without_asking_the_system():
    """160 MiB, five times: a fault for each large page at the least (2 MiB: 400), or none."""
    given_back, kept = faults("given back"), faults("kept")
    assert given_back >= 400
    assert kept < 40

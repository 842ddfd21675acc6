"""What is set for a whole process."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from jaxrobust import process
if sys.argv[1] == "keep":
    assert process.keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
seen = []
for _ in range(3):
    before = faults()
    b"x" * 2**27  # 128 MiB, freed at once
    seen.append(faults() - before)
print(seen[-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_freed_memory_is_used_again_without_asking_the_system():
    def pages(how):
        command = [sys.executable, "-c", FAULTS, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert pages("leave") > 10_000  # else the next line says nothing
    assert pages("keep") < 100

"""What a fork-server has loaded lies in large pages."""

import json
import os
import subprocess
import sys

import pytest

LINUX = tuple(int(part) for part in os.uname().release.split(".")[:2])
PROGRAM = """
from graders.sandbox.large_pages import LargePages
large_pages = LargePages()
import pandas, json
large_pages.join()
assert pandas.Series([1, 2]).sum() == 3
sizes = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup") if line.endswith("kB\\n"))
print(json.dumps([int(sizes["AnonHugePages:"]), int(sizes["Anonymous:"])]))
"""


@pytest.mark.skipif(LINUX < (6, 1), reason="Linux joins pages on demand since 6.1")
@pytest.mark.skipif(
    not os.path.exists("/sys/kernel/mm/transparent_hugepage"), reason="this kernel has no large pages"
)
def test_most_of_what_is_loaded_lies_in_large_pages_and_nothing_else_is_kept():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    in_large_pages, memory = json.loads(found.stdout)
    assert in_large_pages >= memory / 2
    assert memory < 160 * 1024  # the 128 arenas made ahead would show

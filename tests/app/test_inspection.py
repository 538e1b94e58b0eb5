"""Looking at torch from a process that does not load it: what is found, and a child that misbehaves."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.inspection import (
    ChildLimits,
    InspectionError,
    InspectionOutOfMemory,
    InspectionTimedOut,
    TrainExtraMissing,
    inspect,
)
from app.process import wait_gone

ROOT = Path(__file__).parents[2]
MISBEHAVED = (sys.executable, "-m", "tests.app.inspections")


def test_torch_is_found_and_this_process_does_not_load_it() -> None:
    asking = "import sys, app.inspection as i; print(i.inspect('torch')['version'], 'torch' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", asking], capture_output=True, text=True, check=True, cwd=ROOT
    )
    version, is_loaded = told.stdout.split()
    assert version[0].isdigit()
    assert is_loaded == "False"
    found = inspect("torch")
    assert found["version"] == version
    assert found.keys() == {"version", "cuda", "gpus"}
    assert isinstance(found["gpus"], int)


def test_a_machine_without_torch_is_told_what_to_install() -> None:
    without_packages = (sys.executable, "-S", "-m", "workers.inspect")
    with pytest.raises(TrainExtraMissing, match=r"^torch is not installed here\. .*'cherry-rft\[train\]'$"):
        inspect("torch", command=without_packages)


def test_a_child_that_hangs_is_killed_at_its_limit(tmp_path: Path) -> None:
    """`inspect` returns only once its child is gone, which by itself would take ten minutes."""
    with pytest.raises(InspectionTimedOut, match="did not end within 1 s"):
        inspect("hang", limits=ChildLimits(seconds=1), command=MISBEHAVED, pid_file=str(tmp_path / "pid"))


def test_a_child_that_eats_memory_is_stopped() -> None:
    with pytest.raises(InspectionOutOfMemory, match="more than the 256 MiB"):
        inspect("eat", limits=ChildLimits(memory_bytes=2**28), command=MISBEHAVED)


def test_a_child_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    arguments = f"'hang', command={MISBEHAVED}, pid_file={str(pid_file)!r}"
    asking = f"from app.inspection import inspect; inspect({arguments})"
    with subprocess.Popen([sys.executable, "-c", asking], cwd=ROOT) as parent:
        while not (pid_file.exists() and pid_file.read_text()):
            assert parent.poll() is None
            time.sleep(0.02)
        parent.kill()
    assert wait_gone(int(pid_file.read_text()), 20)


def test_what_libraries_print_is_no_part_of_the_result_and_secrets_stay_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:password@host/name")
    monkeypatch.setenv("CHERRY_SECRET_KEY", "secret")
    assert inspect("chatter", command=MISBEHAVED, word="näh") == {"word": "näh", "secrets": []}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fail", "ValueError: this folder holds no model"),
        ("abort", "SIGABRT"),
        ("tell_too_much", "at most 1048576 can be told"),
        ("unknown", "KeyError: 'unknown'"),
    ],
)
def test_any_other_failure_says_what_happened(name: str, said: str) -> None:
    with pytest.raises(InspectionError, match=said):
        inspect(name, command=MISBEHAVED)

"""Work on the CPU of a machine with a GPU opens no CUDA context there: the GPU is another job's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "work",
    [
        "facts",
        pytest.param("reinforcement", marks=pytest.mark.long),
        pytest.param("supervised", marks=pytest.mark.long),
    ],
)
def test_work_on_the_cpu_starts_no_cuda(work: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.workers.devices.without_context", work, str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "no context was opened" in done.stdout


@pytest.mark.slow
def test_processes_of_the_service_but_its_workers_load_no_torch() -> None:
    modules = "app.main, app.embedded.supervisor, app.webhooks.relay, workers.serving.__main__"
    asking = f"import sys, {modules}; print('torch' in sys.modules)"
    env = {**os.environ, "DATABASE_URL": "postgresql:///x", "CHERRY_BROKER_URL": "memory://"}
    told = subprocess.run([sys.executable, "-c", asking], cwd=ROOT, env=env, capture_output=True, text=True)
    assert told.stdout.strip() == "False", told.stderr[-2000:]

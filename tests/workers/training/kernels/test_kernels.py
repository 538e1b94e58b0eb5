"""Compiled kernels: where their machine code is kept, and the arithmetic that they share."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workers.training import kernels
from workers.training.kernels.exponential import exp


def test_machine_code_is_kept_in_a_folder_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = kernels.machine_code_folder()
    assert folder is not None
    assert folder.parent == tmp_path / "cache" / "cherry"
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    assert kernels.machine_code_folder() == tmp_path / "chosen" / folder.name


def test_a_place_that_cannot_be_written_to_is_told_of_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    program = (
        "import logging; logging.basicConfig()\n"
        "import numpy as np\n"
        "from workers.training.kernels.exponential import exp\n"
        "print(exp(np.float32(0)))"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "file" / "below")}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "1.0"
    assert "kernels_not_kept" in ran.stderr


def test_a_user_without_a_home_compiles_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with caplog.at_level(logging.WARNING):
        assert kernels.machine_code_folder() is None
    assert "kernels_not_kept" in caplog.text


def test_exp_is_right_to_a_unit_in_the_last_place_and_at_its_ends() -> None:
    xs = np.random.default_rng(0).uniform(-87.3, 88.3, 2000).astype(np.float32)
    found = np.array([exp(x) for x in xs])
    assert np.abs(found / np.exp(xs.astype(np.float64)) - 1).max() < 2**-23
    for x, expected in ((0, 1), (-np.inf, 0), (-88, 0), (89, np.inf), (np.inf, np.inf)):
        assert exp(np.float32(x)) == expected
    assert np.isnan(exp(np.float32(np.nan)))


def test_a_kernel_shares_no_function_with_another() -> None:
    program = (
        "import numpy as np, numba\n"
        "import workers.training.kernels\n"
        "@numba.njit\n"
        "def inner(x, y):\n"
        "    total = 0.0\n"
        "    for i in range(len(x)):\n"
        "        for j in range(len(y)):\n"
        "            total += np.tanh(x[i]) * y[j] + y[j] / (x[i] + 3.0)\n"
        "    return total\n"
        "@numba.njit\n"
        "def outer(x):\n"
        "    return inner(x, x) + inner(x[1:], x) + inner(x, x[1:])\n"
        "outer(np.ones(8))\n"
        "print(next(iter(outer.overloads.values())).library.get_llvm_str())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "define internal" in ran.stdout, "a function that was not inlined"
    assert "linkonce_odr" not in ran.stdout


@pytest.mark.long
def test_a_process_that_compiles_computes_what_one_does_that_reads_machine_code(
    tiny_folder: Path, tmp_path: Path
) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "code"), "OMP_NUM_THREADS": "1"}
    module = "tests.workers.training.kernels.numbers_of_a_run"
    command = [sys.executable, "-m", module, str(tiny_folder)]
    compiling, reading = [
        subprocess.run([*command, str(tmp_path / name)], env=env, capture_output=True, text=True, check=True)
        for name in ("compiling", "reading")
    ]
    assert compiling.stdout == reading.stdout != ""

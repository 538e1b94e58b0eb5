"""The Triton kernels without a GPU: computed in Triton's interpreter, and compiled to machine code."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from workers.training.kernels.gpu.trial import Widths

pytest.importorskip("triton", reason="Triton comes with builds of torch for GPUs, and with the extra 'dev'")
from tests.workers.training.kernels.gpu.ahead import compile_all

ROOT = Path(__file__).parents[5]

SMALL = Widths(heads=14, kv_heads=2, head=64, hidden=896, gate=4864)
WIDTHS = {
    "of 0.5B": SMALL,
    "of 7B": Widths(heads=28, kv_heads=4, head=128, hidden=3584, gate=18944),
    "of 70B": Widths(heads=64, kv_heads=8, head=128, hidden=8192, gate=28672),
    "narrow": Widths(heads=4, kv_heads=4, head=32, hidden=100, gate=300),
    "no power of two": Widths(heads=32, kv_heads=32, head=80, hidden=2560, gate=10240),
    "widest": Widths(heads=8, kv_heads=1, head=256, hidden=2048, gate=16384),
}
SHARED_BYTES = 99 * 1024
"""What a block may have on the GPUs with the least (compute capability 8.6 and 8.9)."""


HAS_INTERPRETER = tuple(map(int, version("triton").split(".")[:2])) >= (3, 7)
needs_interpreter = pytest.mark.skipif(
    not HAS_INTERPRETER, reason="The interpreter of Triton 3.6 does not run with NumPy 2.4"
)


def interpreted(tries, first):
    found = subprocess.run(
        [sys.executable, "-m", "tests.workers.training.kernels.gpu.interpreted", str(tries), str(first)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    assert found.stdout.count(f"{tries} tried") == 4


@needs_interpreter
def test_kernels_compute_what_their_plain_twins_do_in_bf16():
    interpreted(1, 1)


@needs_interpreter
@pytest.mark.long
def test_kernels_compute_what_their_plain_twins_do_for_many_shapes():
    interpreted(60, 100)


def assert_compiles(widths, members, dtype, capability):
    for compiled in compile_all(widths, members, dtype, capability):
        assert compiled.machine_code
        assert compiled.shared <= SHARED_BYTES, compiled.name


def test_kernels_compile_to_machine_code_of_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert_compiles(SMALL, 8, torch.bfloat16, 90)


@pytest.mark.long
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("members", [1, 8])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_kernels_compile_for_many_models(tmp_path, monkeypatch, widths, members, dtype, capability):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert_compiles(widths, members, dtype, capability)

"""The softmax step by Triton: computed in its interpreter, and compiled to machine code, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from workers.training.passes.softmax_step import fault_of, plain_step, softmax_step

ROOT = Path(__file__).parents[4]
CPU = torch.device("cpu")

INTERPRETED = """
import torch
from workers.training.passes import softmax_step, triton_softmax
triton_softmax.BLOCK = 64
cpu = torch.device("cpu")
for dtype in (torch.float32, torch.bfloat16):
    assert softmax_step.fault_of(triton_softmax.softmax_step, dtype, cpu) is None, dtype
logits = torch.randn(3, 200)
logits[0, 100:], logits[1, :150], logits[2, 0] = -torch.inf, -1e20, 50.0
logits[0, 3] = 9.0
found = triton_softmax.softmax_step(logits.clone(), torch.tensor([3, 160, 0]), 0.5, False)
logprobs = torch.log_softmax(logits / 0.5, -1)
torch.testing.assert_close(found[0], logprobs[[0, 1, 2], [3, 160, 0]])
entropy = torch.special.entr(logprobs.exp()).sum(-1)
torch.testing.assert_close(found[1], entropy, atol=1e-5, rtol=1e-4)
"""

COMPILED = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from workers.training.passes.triton_softmax import BLOCK, softmax_step_kernel as kernel
for capability in (80, 90):
    for kind in ("*bf16", "*fp16", "*fp32"):
        signature = {"logits": kind, "targets": "*i64", "logprobs": "*fp32", "entropies": "*fp32",
                     "vocabulary": "i32", "stride": "i32", "scale": "fp32"}
        constants = {"WANTS_SLOPES": True, "BLOCK": BLOCK}
        signature |= dict.fromkeys(constants, "constexpr")
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=places)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
        assert made.asm["cubin"] and made.metadata.shared <= 99 * 1024
        assert "st.local" not in made.asm["ptx"]
"""


def run(code: str, **environment: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.mark.long
def test_the_interpreted_kernel_computes_what_plain_pytorch_does() -> None:
    pytest.importorskip("triton", reason="Triton comes with builds of torch for GPUs")
    run(INTERPRETED, TRITON_INTERPRET="1")


@pytest.mark.long
def test_the_kernel_compiles_for_gpus_that_are_not_here() -> None:
    pytest.importorskip("triton", reason="Triton comes with builds of torch for GPUs")
    run(COMPILED)


def test_a_kernel_that_is_off_is_found_out() -> None:
    def off(logits: Any, *args: Any) -> Any:
        found = plain_step(logits, *args)
        logits.mul_(1.05)
        return found

    assert "of their size off" in str(fault_of(off, torch.bfloat16, CPU))
    assert fault_of(plain_step, torch.bfloat16, CPU) is None


def test_the_operation_keeps_to_what_it_declares() -> None:
    logits, targets = torch.randn(3, 7), torch.tensor([1, 0, 6])
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(softmax_step, (logits, targets, 0.7, True), test_utils=checks)

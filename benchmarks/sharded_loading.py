"""`python -m benchmarks.sharded_loading [lora|full ...]`: what loading takes of the memory of two processes.

A random bf16 Llama of 326 MB is written to a temporary folder and loaded by two processes of torchrun with
`sharding: fsdp` and arithmetic in bf16, on the CPU by gloo. There the whole copy that samples lies in the
machine's memory; on a GPU it is the GPU's. What is told is beside what the process had before, by parameter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from methods.train_config import TrainConfig
from tests.tiny_model import byte_tokenizer
from tests.workers.training.support import make_config
from workers.training.base.distributed import World
from workers.training.model.policy import Policy

PROCESSES = 2
EVERY = 0.002
"""Seconds between two looks at the memory that a process has."""


class Memory(NamedTuple):
    """Is what a process has of the machine's memory, in bytes: its own, and files that it has mapped."""

    own: int
    files: int

    def beyond(self, before: Memory) -> Memory:
        """Returns how much more that is."""
        return Memory(self.own - before.own, self.files - before.files)


class Peak:
    """Looks at what this process has until `stop`."""

    def __init__(self) -> None:
        self.before = self.most = memory()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> Memory:
        """Returns the most that it had beyond what it had at the start."""
        self._is_over.set()
        self._thread.join()
        return self.most.beyond(self.before)

    def _look(self) -> None:
        while not self._is_over.wait(EVERY):
            self.most = Memory(*map(max, self.most, memory()))


def memory() -> Memory:
    """Returns what this process has."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Memory(*(int(lines[name].split()[0]) << 10 for name in ("RssAnon", "RssFile")))


def make_model(folder: Path) -> None:
    """Writes the model: 16 layers of 768, with an output layer of its own."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=768,
        intermediate_size=2_048,
        num_hidden_layers=16,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=256,
    )
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def load(config: TrainConfig) -> None:
    """Loads the model in one of the processes, and tells what that took."""
    torch.set_num_threads(1)
    world = World.from_environment("cpu")
    world.wait()
    peak = Peak()
    begun = time.monotonic()
    policy = Policy.load(config, world)
    took, seconds = peak.stop(), time.monotonic() - begun
    n = sum(weight.numel() for weight in policy.rollout_model.parameters())
    found = world.gather((took, memory().beyond(peak.before), seconds))
    if world.is_main:
        print(f"{config.adapter}: {n / 1e6:,.0f} million parameters")
        for rank, (most, stays, seconds) in enumerate(found):
            high, end = ((each.own / n, each.files / n) for each in (most, stays))
            print(
                f"process {rank}: at most {high[0]:.1f} bytes a parameter, and {high[1]:.1f} of files;"
                f" afterwards {end[0]:.1f} and {end[1]:.1f}; {seconds:.1f} s"
            )
    world.close()


def main(adapters: list[str]) -> None:
    """Writes a model, and has it loaded with each adapter."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        for adapter in adapters:
            program = [
                "--nproc-per-node",
                str(PROCESSES),
                "-m",
                "benchmarks.sharded_loading",
                adapter,
                folder,
            ]
            env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
            subprocess.run([*launcher, *program], env=env, check=True)


if __name__ == "__main__":
    if "LOCAL_RANK" in os.environ:
        adapter, folder = sys.argv[1:]
        load(
            make_config(Path(folder), adapter=adapter, dtype="bfloat16", sharding="fsdp", processes=PROCESSES)
        )
    else:
        main(sys.argv[1:] or ["lora", "full"])

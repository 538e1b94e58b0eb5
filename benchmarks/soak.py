"""Does a long run keep its memory? `python -m benchmarks.soak --steps 2000`.

Runs the real training loop on a tiny model, with validation, checkpoints and saved states, and fails if the
process grows after its first steps.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from benchmarks.engine.models import Shape, build
from graders import Grade, Sample
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.base.types import Action, Checkpoint, Group, Split
from workers.training.loop import train

SAMPLE_EVERY = 20
WARM_UP_STEPS = 200
ALLOWED_GROWTH = 20e6
"""Bytes that the process may grow by after the warm-up."""

TINY = Shape(hidden=32, intermediate=64, layers=2, vocab=300, head_dim=8, warm_up_steps=60)
EPOCHS = 50
PROMPTS_PER_STEP = 2


class Memory(NamedTuple):
    """Of this process after a step."""

    step: int
    rss: int
    files: int
    threads: int


class Plateau(NamedTuple):
    """Resident bytes just after the warm-up and at the end, and the fitted growth in between."""

    start: float
    end: float
    per_1000_steps: float

    @property
    def growth(self) -> float:
        return self.end - self.start


class MemoryRecorder:
    """Listens to a run and measures the process every `SAMPLE_EVERY` steps."""

    def __init__(self) -> None:
        self.samples: list[Memory] = []
        self._process = psutil.Process()

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:  # noqa: ARG002
        if step % SAMPLE_EVERY == 0:
            gc.collect()
            process = self._process
            sample = Memory(step, process.memory_info().rss, process.num_fds(), process.num_threads())
            self.samples.append(sample)

    def phase(self, phase: str) -> None: ...

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None: ...

    def checkpoint(self, saved: Checkpoint) -> None: ...

    def snapshot(self, saved: Checkpoint) -> None: ...

    def dropped(self, step: int) -> None: ...

    def state(self, step: int, folder: Path) -> None: ...

    def pausing(self, message: str) -> None:
        self.note("warn", message)

    def action(self, action: Action) -> None: ...

    def note(self, level: str, message: str) -> None:
        print(f"{level}: {message}", file=sys.stderr)


class VowelGrader:
    """Share of an answer that is vowels."""

    type = "python"
    name = "vowels"

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:  # noqa: ARG002
        text = sample.output_text
        return Grade(sum(c in "aeiou" for c in text) / max(len(text), 1))


def plateau_of(samples: Sequence[Memory]) -> Plateau:
    """From the samples after the warm-up; start and end are medians of five."""
    settled = [sample for sample in samples if sample.step >= WARM_UP_STEPS]
    if len(settled) < 2:
        raise ValueError(f"too few steps: a soak needs more than {WARM_UP_STEPS + SAMPLE_EVERY}")
    sizes = [float(sample.rss) for sample in settled]
    slope, _ = statistics.linear_regression([float(sample.step) for sample in settled], sizes)
    return Plateau(statistics.median(sizes[:5]), statistics.median(sizes[-5:]), 1000 * slope)


def run(steps: int, folder: Path) -> list[Memory]:
    """Train, in whole epochs, at least so many steps."""
    rows = PROMPTS_PER_STEP * -(-steps // EPOCHS)
    config = TrainConfig(
        model="tiny",
        model_path=str(build(TINY, folder / "model")),
        seed=1,
        n_epochs=EPOCHS,
        prompts_per_step=PROMPTS_PER_STEP,
        group_size=8,
        max_completion_tokens=24,
        learning_rate=1e-4,
        eval_interval=50,
        save_state_every=20,
        kl_probe_size=8,
        device="cpu",
    )
    recorder = MemoryRecorder()
    train(config, _rows(rows), _rows(8), VowelGrader(), recorder, folder / "run")
    return recorder.samples


def _rows(count: int) -> list[Row]:
    """Prompts of 5 to 104 characters."""
    texts = ["tell " + "x" * (37 * i % 100) for i in range(count)]
    messages = [[{"role": "user", "content": text}] for text in texts]
    return [Row(line=i + 1, item={"messages": message}) for i, message in enumerate(messages)]


def text_of(samples: Sequence[Memory], seconds: float) -> str:
    """What a person wants to know."""
    plateau, first, last = plateau_of(samples), samples[0], samples[-1]
    shown = [*samples[: -1 : max(1, len(samples) // 10)], last]
    return "\n".join(
        [
            "| step | resident MB | open files | threads |",
            "| --- | --- | --- | --- |",
            *(f"| {s.step:,} | {s.rss / 1e6:.1f} | {s.files} | {s.threads} |" for s in shown),
            "",
            f"{last.step:,} steps in {seconds:.0f} s. Plateau from step {WARM_UP_STEPS} to the end:"
            f" {plateau.start / 1e6:.1f} to {plateau.end / 1e6:.1f} MB ({plateau.growth / 1e6:+.1f}), fitted"
            f" {plateau.per_1000_steps / 1e6:+.2f} MB per 1,000 steps. Open files {first.files} to"
            f" {last.files}, threads {first.threads} to {last.threads}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        samples = run(args.steps, Path(folder))
    print(text_of(samples, time.perf_counter() - start))
    if plateau_of(samples).growth > ALLOWED_GROWTH:
        sys.exit(f"The process grew by more than {ALLOWED_GROWTH / 1e6:.0f} MB after step {WARM_UP_STEPS}.")


if __name__ == "__main__":
    main()

"""A model learns beside a quantised base: curve and time by base precision.

    OMP_NUM_THREADS=1 python -m benchmarks.base_precision [FOLDER] [--precisions nf4 int8 auto bf16]

FOLDER holds SmolLM2-135M-Instruct, which learns two-digit sums; without one the built-in model learns the
example about people. Each precision trains the same rows with the same seed by `grpo` at the rate of
"auto", and prints, as it goes, how many answers of each step are right, their mean reward, the KL to the
reference and the seconds; and of the base and of what is delivered: how many are right on unseen rows, the
reward there, the KL and what rounding lost. Sums are paid half for being right and half by their right
digits, so that a model that cannot add yet has something to learn from.
docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from graders import Grade, Sample, build_grader, parse_grader
from methods import metrics as names
from methods.hyperparameters import Facts
from methods.resolve import resolve_train
from methods.rows import Row, read_rows
from methods.train_config import TrainConfig
from workers.training.base.types import Checkpoint, Group, Split
from workers.training.loop import train
from workers.training.model.policy import Policy
from workers.training.model.shape import read_shape
from workers.training.prompts import make_prompts
from workers.training.recorders import Silent
from workers.training.sampling.asked import Sampling
from workers.training.sampling.rollout import sample_groups

PEOPLE = Path("examples/people")
NANO = Path("workers/models/cherry_nano").resolve()


class Task(NamedTuple):
    """Says what a model learns.

    Attributes:
        longest_prompt: tokens of the longest prompt with its chat template.
        completion: tokens of an answer, at most.
    """

    folder: Path
    train: list[Row]
    valid: list[Row]
    grader: Any
    longest_prompt: int
    completion: int


class Digits:
    """Grades the last number of the first line: half for a right sum, half by its digits that are right."""

    type, name = "python", "digits"

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        """Returns the grade of one answer."""
        numbers = re.findall(r"\d+", sample.output_text.strip().partition("\n")[0])
        found, wanted = numbers[-1] if numbers else "", item["reference"]
        places = max(len(found), len(wanted))
        same = sum(a == b for a, b in zip(reversed(found), reversed(wanted), strict=False))
        return Grade(0.5 * (found == wanted) + 0.5 * same / places)


class Printer(Silent):
    """Prints a line for each step, evaluation and checkpoint."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def rollouts(self, split: Split, step: int, _epoch: int, groups: Sequence[Group]) -> None:
        """Prints the share of completions that are right."""
        grades = [grade.value for group in groups for grade in group.grades]
        right, of = sum(value == 1 for value in grades), " unseen" if split == "valid" else ""
        end = "\n" if split == "valid" else ""
        print(f"  step {step:3}  {right} of {len(grades)}{of} right", end=end, flush=True)

    def metrics(self, _step: int, _epoch: int, values: Mapping[str, Any]) -> None:
        """Prints the rest of a step."""
        reward, kl = values.get(names.REWARD_MEAN), values.get(names.KL_REFERENCE)
        if reward is not None and kl is not None:
            seconds = time.monotonic() - self.began
            print(f"  reward {reward:.3f}  kl {kl:.6f}  {seconds:6.0f} s", flush=True)

    def checkpoint(self, saved: Checkpoint) -> None:
        """Prints a checkpoint, as delivered."""
        lost = saved.extra.get("rounding_error")
        told = "" if lost is None else f"  rounding {lost:.4f}"
        reward = "" if saved.valid_reward is None else f"  unseen reward {saved.valid_reward:.3f}"
        print(f"  checkpoint {saved.step:3}{reward}  kl {saved.kl:.6f}{told}", flush=True)

    def note(self, _level: str, message: str) -> None:
        """Prints what else is said."""
        print(f"  {message}", flush=True)


def sums(count: int, rng: random.Random, taken: set[str]) -> list[Row]:
    """Returns rows whose sums are not in `taken`, which they join."""
    found: list[Row] = []
    while len(found) < count:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        text = f"What is {a} + {b}? Answer with the number only."
        if text not in taken:
            taken.add(text)
            messages = [{"role": "user", "content": text}]
            found.append(Row(len(found) + 1, {"messages": messages, "reference": str(a + b)}))
    return found


def task_of(folder: Path | None) -> Task:
    """Returns sums for the model in a folder, and people for the built-in one."""
    if folder is not None:
        rng, taken = random.Random(7), set[str]()
        return Task(folder, sums(64, rng, taken), sums(32, rng, taken), Digits(), 64, 16)
    train_rows, valid_rows = (read_rows(PEOPLE / f"{name}.jsonl") for name in ("train", "valid"))
    grader = build_grader(parse_grader(json.loads((PEOPLE / "grader.json").read_text("utf-8"))))
    return Task(NANO, train_rows, valid_rows, grader, 192, 96)


def config_of(task: Task, precision: str, steps: int, prompts: int) -> TrainConfig:
    """Returns the run: 8 answers to each prompt of a step, all else by "auto"."""
    asked = {
        "base_precision": precision,
        "batch_size": prompts,
        "group_size": 8,
        "max_completion_tokens": task.completion,
        "max_steps": steps,
        "n_epochs": -(-steps * prompts // len(task.train)),
        "eval_interval": steps,
        "eval_samples": 2,
        "kl_probe_size": 8,
    }
    sizes = task.longest_prompt, len(task.train), len(task.valid)
    method = {"reinforcement": {"hyperparameters": asked}}
    facts = Facts(*read_shape(task.folder), *sizes)
    return resolve_train(method, facts, model=task.folder.name, model_path=str(task.folder), seed=7)


def run(task: Task, precision: str, steps: int, prompts: int) -> None:
    """Trains once and prints how it went."""
    config = config_of(task, precision, steps, prompts)
    print(f"{precision}: rate {config.learning_rate:.2g}", flush=True)
    with tempfile.TemporaryDirectory() as run_dir:
        train(config, task.train, task.valid, task.grader, Printer(), Path(run_dir))


def measure(task: Task, precision: str) -> None:
    """Prints how many of the answers of the base are right, two to each unseen row, and their mean reward."""
    policy = Policy.load(config_of(task, precision, 1, 1))
    prompts = make_prompts(task.valid, policy.tokenizer, policy.context, "validation")
    groups = sample_groups(policy, prompts, Sampling(2, task.completion, 1.0, ("base", 7)))
    answers = [(one.text, group.prompt.item) for group in groups for one in group.completions]
    grades = [task.grader.grade(Sample(text), item).value for text, item in answers]
    right, reward = sum(grade == 1 for grade in grades), sum(grades) / len(grades)
    print(f"{precision}: {right} of {len(grades)} right, mean reward {reward:.3f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs every precision that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--precisions", nargs="+", default=["nf4", "int8", "auto", "bf16"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=8, help="of a step")
    parser.add_argument("--base-only", action="store_true", help="measure the bases; train nothing")
    given = parser.parse_args(arguments)
    for precision in given.precisions:
        if given.base_only:
            measure(task_of(given.folder), precision)
            continue
        run(task_of(given.folder), precision, given.steps, given.prompts)


if __name__ == "__main__":
    main()

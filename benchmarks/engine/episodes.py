"""Episodes with tools beside stock TRL: `python -m benchmarks.engine.episodes`.

Episodes of four turns a second, where a call takes 0 and 200 ms: what waiting costs, and how fast TRL's
`GRPOTrainer` with `tools=` plays the same, which calls one rollout's tool after another's.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl.chat_template_utils import add_response_schema
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from graders import Grade, Sample
from methods.rows import Row
from methods.train_config import TrainConfig
from tests.calling_model import AGAIN, LETTERS, make_calling_model, number_of, row_of
from tests.chat_templates import TEMPLATES
from workers.training.base.parts import Parts
from workers.training.base.turns import CallResult
from workers.training.collector import sample_and_grade
from workers.training.episodes.environment import Reply
from workers.training.episodes.episodes import Episodes
from workers.training.metrics import Clock
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.rewards import GradePool
from workers.training.sampling.rollout import Sampling

PROMPTS, GROUP, TURNS = 8, 8, 4
TOKENS = 400
HIDDEN, LAYERS = 192, 4
"""Of the model: about as large as cherry-nano, and taught to call in a minute."""
WAITS = (0.0, 0.2)
CLOSE, FASTER = 0.85, 10.0
"""The bars: the share of the rate at 0 ms that is left at 200 ms, and times the rate of stock TRL."""


class Telling:
    """Answers a call after a wait: to call again, and in the last turn but one with the number."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def start(self, item: Mapping[str, Any], _trace_id: str) -> Told:
        return Told(self.seconds, item["letter"])


class Told:
    def __init__(self, seconds: float, letter: str) -> None:
        self.seconds, self.letter, self.asked = seconds, letter, 0

    def reply(self, parts: Parts) -> Reply:
        if not parts.calls:
            return Reply()
        time.sleep(self.seconds)
        self.asked += 1
        text = number_of(self.letter) if self.asked == TURNS - 1 else AGAIN
        return Reply([CallResult(f"call_{n}", call, text) for n, call in enumerate(parts.calls)])


class Alike:
    """Grades nothing that takes time."""

    name, type = "alike", "python"

    def grade(self, _sample: Sample, _item: Mapping[str, Any]) -> Grade:
        return Grade(1.0)


class Ours:
    """Samples steps of episodes as a run does."""

    def __init__(self, folder: Path) -> None:
        self.config = TrainConfig(
            model="calling",
            model_path=str(folder),
            seed=1,
            n_epochs=1,
            prompts_per_step=PROMPTS,
            group_size=GROUP,
            max_completion_tokens=TOKENS,
            learning_rate=1e-4,
            eval_interval=1,
            device="cpu",
            max_episode_steps=TURNS,
        )
        self.policy = Policy.load(self.config)
        rows = [Row(n + 1, row_of(letter)) for n, letter in enumerate(LETTERS[:PROMPTS])]
        self.prompts = make_prompts(rows, self.policy.tokenizer, self.policy.context, "training")
        self.pool = GradePool(Alike())

    def rate(self, wait: float, step: int) -> tuple[float, float]:
        """Returns episodes a second, and their mean turns."""
        episodes = Episodes(Telling(wait), self.policy.reader, self.config, self.policy)
        sampling = Sampling(GROUP, TOKENS, 1.0, ("bench", step))
        start = time.perf_counter()
        groups = sample_and_grade(self.policy, self.prompts, sampling, self.pool, Clock(), episodes)
        seconds = time.perf_counter() - start
        episodes.close()
        turns = [len(one.turns) for group in groups for one in group.completions]
        return len(turns) / seconds, statistics.fmean(turns)


def alike(completions: list[Any], **_: Any) -> list[float | None]:
    """Returns the same for each completion."""
    return [1.0 for _ in completions]


def stock_rate(folder: Path, wait: float, steps: int) -> tuple[float, float]:
    """Returns what stock TRL's own generation with tools makes of the same rows: its best step."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = copy.copy(tokenizer)
    known.chat_template = TEMPLATES["qwen3"]  # the form of the calls is Qwen's
    tokenizer.response_template = add_response_schema(known).response_template
    asked: dict[str, int] = {}

    def look_up(key: str) -> str:
        """Tells the number of a letter.

        Args:
            key: the letter.
        """
        time.sleep(wait)
        asked["n"] = asked.get("n", 0) + 1
        return AGAIN if asked["n"] <= PROMPTS * GROUP * (TURNS - 2) else number_of(key[:1] or "a")

    rates: list[tuple[float, float]] = []
    rows = [{"prompt": row_of(letter)["messages"]} for letter in LETTERS[:PROMPTS]]
    with tempfile.TemporaryDirectory() as output, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = GRPOConfig(
            output_dir=output,
            use_cpu=True,
            max_steps=steps,
            per_device_train_batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=TOKENS,
            max_tool_calling_iterations=TURNS - 1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            beta=0.0,
        )
        trainer: Any = GRPOTrainer(
            model=str(folder),
            reward_funcs=alike,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            tools=[look_up],
        )
        generate = trainer._generate

        def timed(*args: Any, **kwargs: Any) -> Any:
            asked.clear()
            start = time.perf_counter()
            found = generate(*args, **kwargs)
            calls = asked.get("n", 0)
            rates.append((PROMPTS * GROUP / (time.perf_counter() - start), 1 + calls / (PROMPTS * GROUP)))
            return found

        trainer._generate = timed
        trainer.train()
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of ours, at each wait")
    parser.add_argument("--stock-steps", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = make_calling_model(
            Path(name) / "calling", 300, most_calls=TURNS - 1, hidden=HIDDEN, layers=LAYERS
        )
        ours = Ours(folder)
        ours.rate(0.0, 0)  # the kernels are compiled
        found: dict[float, list[tuple[float, float]]] = {wait: [] for wait in WAITS}
        for step in range(1, args.steps + 1):
            for wait in WAITS:
                found[wait].append(ours.rate(wait, step))
        stock = stock_rate(folder, WAITS[1], args.stock_steps)
    rates = {wait: statistics.median(rate for rate, _ in many) for wait, many in found.items()}
    print("| side | call | episodes a second | turns |\n|---|---|---|---|")
    for wait, many in found.items():
        print(f"| ours | {1000 * wait:.0f} ms | {rates[wait]:.2f} | {many[0][1]:.1f} |")
    print(f"| stock | {1000 * WAITS[1]:.0f} ms | {stock[0]:.2f} | {stock[1]:.1f} |")
    kept, faster = rates[WAITS[1]] / rates[WAITS[0]], rates[WAITS[1]] / stock[0]
    print(
        f"\n{kept:.2f} of the rate is left (at least {CLOSE}); {faster:.1f} times stock (at least {FASTER})."
    )


if __name__ == "__main__":
    main()

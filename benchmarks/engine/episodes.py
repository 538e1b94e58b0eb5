"""Episodes of four turns: `python -m benchmarks.engine.episodes`.

What calls of 200 ms cost beside calls of 0 ms, with cherry-nano; and how fast TRL's `GRPOTrainer` with
`tools=` plays the same episodes as ours, with a small model that was taught to call; and how far our gradient
of what TRL has sampled is from TRL's own.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl.chat_template_utils import add_response_schema
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.engine.held_back import HeldBack
from benchmarks.engine.models import NANO
from benchmarks.engine.workloads import WORKLOADS, make_rows
from methods.rows import Row
from methods.train_config import TrainConfig
from tests.calling_model import AGAIN, LETTERS, make_calling_model, number_of, row_of
from tests.chat_templates import TEMPLATES
from tests.workers.training.trl_side import apart, gradients, groups_of_tools, our_gradient, their_model
from workers.training.base.parts import Parts
from workers.training.base.turns import CallResult
from workers.training.base.types import Prompt
from workers.training.episodes.environment import Environment, Reply
from workers.training.episodes.limits import EpisodeLimits
from workers.training.episodes.play import Play, TakesApart
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.rewards import Rewards
from workers.training.sampling.rollout import Sampling, sample_groups

PROMPTS, GROUP, TURNS = 8, 8, 4
TOKENS = 400
WAIT = 0.2
CLOSE, FASTER = 0.85, 10.0
"""The bars: the share of the rate at 0 ms that is left at 200 ms, and times the rate of stock TRL."""


class Talking:
    """Asks for more, as a user does, until there are four turns."""

    def start(self, _item: Mapping[str, Any], _trace_id: str) -> Talk:
        return Talk()


class Talk:
    def __init__(self) -> None:
        self.asked = 0

    def reply(self, _parts: Parts) -> Reply:
        self.asked += 1
        if self.asked == TURNS:
            return Reply()
        return Reply(messages=[{"role": "user", "content": "Write the words again:"}])


class Telling:
    """Answers a call after a wait: to call again, and in the last turn but one with the number."""

    def start(self, item: Mapping[str, Any], _trace_id: str) -> Told:
        return Told(item["letter"])


class Told:
    def __init__(self, letter: str) -> None:
        self.letter, self.asked = letter, 0

    def reply(self, parts: Parts) -> Reply:
        if not parts.calls:
            return Reply()
        time.sleep(WAIT)
        self.asked += 1
        text = number_of(self.letter) if self.asked == TURNS - 1 else AGAIN
        return Reply([CallResult(f"call_{n}", call, text) for n, call in enumerate(parts.calls)])


class AllAnswer:
    """Takes each turn for an answer."""

    def read(
        self, _prompt: Sequence[int], _tokens: Sequence[int], _tools: Sequence[Any] | None = None
    ) -> Parts:
        return Parts(answer="x")


class Ours:
    """Samples steps of episodes."""

    def __init__(self, folder: str, environment: Environment, reader: TakesApart | None = None) -> None:
        self.policy = Policy.load(_config(folder))
        found = reader or self.policy.reader
        assert found is not None, "the model is one that calls tools"
        self.reader, self.environment = found, environment

    def sample(self, prompts: Sequence[Prompt], step: int, wait: float | None) -> tuple[float, float]:
        """Returns episodes a second, and their mean turns. `wait` holds replies back by HeldBack's clock."""
        limits = EpisodeLimits(TURNS, TOKENS, self.policy.context)
        sampling = Sampling(GROUP, TOKENS, 1.0, ("bench", step))
        with ThreadPoolExecutor(PROMPTS * GROUP) as threads:
            asked = (self.environment, self.policy.tokenizer, self.reader, prompts, limits)
            play = Play(*asked, self.policy.end_ids, threads)
            held = HeldBack(play, wait or 0.0)
            start = time.perf_counter()
            groups = sample_groups(self.policy, prompts, sampling, turns=play if wait is None else held)
            seconds = time.perf_counter() - start if wait is None else held.seconds
        turns = [len(one.turns) for group in groups for one in group.completions]
        return len(turns) / seconds, statistics.fmean(turns)


def _config(folder: str, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": "bench",
        "model_path": folder,
        "seed": 1,
        "n_epochs": 1,
        "prompts_per_step": PROMPTS,
        "group_size": GROUP,
        "max_completion_tokens": TOKENS,
        "learning_rate": 1e-4,
        "eval_interval": 1,
        "device": "cpu",
        "max_episode_steps": TURNS,
    }
    return TrainConfig(**{**fields, **changes})


def waiting_costs(steps: int) -> float:
    """Prints our rates with cherry-nano at both waits; returns the share that is left."""
    ours = Ours(str(NANO), Talking(), AllAnswer())
    rows = make_rows(replace(WORKLOADS["w1"], rows=PROMPTS), ours.policy.tokenizer)
    prompts = make_prompts(rows, ours.policy.tokenizer, ours.policy.context, "training")
    ours.sample(prompts, 0, 0.0)  # the kernels are compiled
    rates: dict[float, list[float]] = {0.0: [], WAIT: []}
    for step in range(1, steps + 1):
        for wait, found in rates.items():
            found.append(ours.sample(prompts, step, wait)[0])
    medians = {wait: statistics.median(found) for wait, found in rates.items()}
    for wait, rate in medians.items():
        print(f"| ours, cherry-nano | {1000 * wait:.0f} ms | {rate:.2f} | {TURNS} |")
    return medians[WAIT] / medians[0.0]


def beside_stock(folder: Path, steps: int) -> float:
    """Prints both sides' rates with a model that calls; returns how many times as fast ours is."""
    ours = Ours(str(folder), Telling())
    rows = [Row(n + 1, row_of(letter)) for n, letter in enumerate(LETTERS[:PROMPTS])]
    prompts = make_prompts(rows, ours.policy.tokenizer, ours.policy.context, "training")
    mine = max(ours.sample(prompts, step, None) for step in range(steps + 1))
    stock = stock_rate(folder, steps)
    for side, (rate, turns) in (("ours", mine), ("stock TRL", stock)):
        print(f"| {side}, a model that calls | {1000 * WAIT:.0f} ms | {rate:.2f} | {turns:.1f} |")
    return mine[0] / stock[0]


def stock_rate(folder: Path, steps: int) -> tuple[float, float]:
    """Returns what stock TRL's own generation with tools makes of the same rows: its best step."""
    tool = StockTool()

    rates: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as output, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = _stock_trainer(folder, output, tool.look_up, max_steps=steps)
        generate = trainer._generate

        def timed(*args: Any, **kwargs: Any) -> Any:
            tool.calls, start = 0, time.perf_counter()
            found = generate(*args, **kwargs)
            n = PROMPTS * GROUP
            rates.append((n / (time.perf_counter() - start), 1 + tool.calls / n))
            return found

        trainer._generate = timed
        trainer.train()
    return max(rates)


def gradients_apart(folder: Path) -> tuple[float, int]:
    """Returns how far our gradient of episodes that stock TRL has sampled is from its own, and the tokens.

    It is a share of the gradient's norm, all weights trained, in fp32.
    """
    config = _config(
        str(folder), adapter="full", beta=0.0, algorithm="dapo", overlong_buffer=0.0, max_grad_norm=1e12
    )
    policy = Policy.load(config)
    with tempfile.TemporaryDirectory() as output, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = _stock_trainer(folder, output, StockTool(0.0).look_up, loss_type="dapo")
        trainer.current_gradient_accumulation_steps = 1
        model, weights = their_model(policy, trainer, "full")
        rows = [{"prompt": row_of(letter)["messages"]} for letter in LETTERS[:PROMPTS] for _ in range(GROUP)]
        inputs = trainer._generate_and_score_completions(rows)
        theirs = gradients(trainer._compute_loss(model, inputs), weights)
    asked = [Row(n + 1, row_of(letter)) for n, letter in enumerate(LETTERS[:PROMPTS])]
    prompts = make_prompts(asked, policy.tokenizer, policy.context, "training")
    groups = groups_of_tools(policy, prompts, inputs)
    values = torch.tensor(
        [[reward_of(completion.tokens) for completion in group.completions] for group in groups],
        dtype=torch.float64,
    )
    ours = our_gradient(policy, groups, Rewards(values, torch.ones_like(values, dtype=torch.bool)), config)
    return apart(ours, theirs), sum(len(one.tokens) for group in groups for one in group.completions)


class StockTool:
    """Is a tool of TRL's: it says to call again, and in the last turn but one a number."""

    def __init__(self, wait: float = WAIT) -> None:
        self.calls, self.wait = 0, wait

    def look_up(self, key: str) -> str:
        """Tells the number of a letter.

        Args:
            key: the letter.
        """
        time.sleep(self.wait)
        self.calls += 1
        return AGAIN if self.calls <= PROMPTS * GROUP * (TURNS - 2) else str(len(key))


def reward_of(tokens: Sequence[int]) -> float:
    """Returns a number that differs between completions: large, as TRL adds 1e-4 to its deviations."""
    return 1000 * sum(token % 7 for token in tokens) / len(tokens)


def stock_rewards(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    return [reward_of(tokens) for tokens in completion_ids]


def _stock_trainer(folder: Path, output: str, tool: Any, **settings: Any) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = copy.copy(tokenizer)
    known.chat_template = TEMPLATES["qwen3"]  # the form of the calls is Qwen's
    tokenizer.response_template = add_response_schema(known).response_template
    arguments = GRPOConfig(
        output_dir=output,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=PROMPTS * GROUP,
        num_generations=GROUP,
        max_completion_length=TOKENS,
        max_tool_calling_iterations=TURNS - 1,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        beta=0.0,
        **settings,
    )
    rows = [{"prompt": row_of(letter)["messages"]} for letter in LETTERS[:PROMPTS]]
    return GRPOTrainer(
        model=str(folder),
        reward_funcs=stock_rewards,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        tools=[tool],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of ours, at each wait")
    parser.add_argument("--stock-steps", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| side | call | episodes a second | turns |\n|---|---|---|---|", flush=True)
    kept = waiting_costs(args.steps)
    with tempfile.TemporaryDirectory() as name:
        folder = make_calling_model(Path(name) / "calling", 500, most_calls=TURNS - 1)
        faster = beside_stock(folder, args.stock_steps)
        difference, tokens = gradients_apart(folder)
    print(
        f"\n{kept:.2f} of the rate is left (at least {CLOSE}), {faster:.1f} times stock (at least {FASTER})"
    )
    print(f"Gradient of stock TRL's own episodes, {tokens} tokens: {difference:.1e} from its own, in fp32")


if __name__ == "__main__":
    main()

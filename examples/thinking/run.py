"""Teach a model to think its answers through, and measure what its thoughts are worth.

    python -m examples.thinking.run

The built-in model `cherry-nano-think` can work out a sum digit by digit and follow a table line by line, but
often it doesn't bother. A reinforcement job that grades nothing but the answer makes it do so. Then the
tuned model answers 100 questions that it has not seen, with its thoughts and with a budget of none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from openai import OpenAI

from examples.demo import service
from examples.flywheel.run import AT_ONCE, Difference, compare, finished

HERE = Path(__file__).parent
NO_THOUGHTS: dict[str, Any] = {"max_thinking_tokens": 0}

Row = dict[str, Any]


class Outcome(NamedTuple):
    """What was trained, and what its thoughts are worth."""

    model: str
    base: list[float]
    thinking: list[float]
    difference: Difference
    """From no thoughts to thoughts, of the tuned model."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".thinking"), help="folder for all its state")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    with service(args.data, keep=False) as up:
        client = OpenAI(base_url=up["url"] + "/v1", api_key=up["api_key"])
        teach_and_measure(client, args.seed, print)
    return 0


def teach_and_measure(client: OpenAI, seed: int, say: Callable[[str], None]) -> Outcome:
    """Train, then compare."""
    unseen = read_rows(HERE, "unseen")
    model = train(client, HERE, seed, {}, say)
    base = right_answers(client, "cherry-nano-think", unseen, seed, {})
    closed, thinking = (right_answers(client, model, unseen, seed, budget) for budget in (NO_THOUGHTS, {}))
    found = compare(closed, thinking)
    say(f"Right of {len(unseen)} unseen: before {sum(base):.0f}, after {sum(thinking):.0f} with thoughts")
    say(f"and {sum(closed):.0f} without; p = {found.p:.4f}")
    return Outcome(model, base, thinking, found)


def read_rows(folder: Path, name: str) -> list[Row]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def train(
    client: OpenAI, folder: Path, seed: int, changes: dict[str, Any], say: Callable[[str], None]
) -> str:
    """The job of an example's folder, with its files; `changes` go into its reinforcement block."""
    files = [
        client.files.create(file=folder / f"{name}.jsonl", purpose="fine-tune").id
        for name in ("train", "valid")
    ]
    body = json.loads((folder / "job.json").read_text())
    body["method"]["reinforcement"] |= changes
    body |= {"training_file": files[0], "validation_file": files[1], "seed": seed}
    return finished(client, client.fine_tuning.jobs.create(**body).id, say)


def right_answers(
    client: OpenAI, model: str, rows: Sequence[Row], seed: int, extra: dict[str, Any]
) -> list[float]:
    """1 for each right answer, sampled as in training, else 0. Thoughts are no part of `content`."""

    def asked(number: int, row: Row) -> float:
        completion = client.chat.completions.create(
            model=model,
            messages=row["messages"],
            seed=seed * len(rows) + number,
            max_completion_tokens=160,
            extra_body=extra,
        )
        answer = completion.choices[0].message.content or ""
        return float(answer.strip() == row["reference"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(asked, range(len(rows)), rows))


if __name__ == "__main__":
    sys.exit(main())

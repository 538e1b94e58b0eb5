"""Teach a real model that has never thought to think, and tune its thoughts: SmolLM2-135M-Instruct.

    python -m examples.thinking.smollm2 FOLDER

FOLDER holds the model as its makers publish it. Its chat template knows no thoughts, so it is added with one
that does (`smollm2.jinja`). A supervised job on 200 made rows shows it how to add four numbers up, one after
the other; a reinforcement job that grades the answer alone makes it do so reliably. Then the tuned model adds
up 100 times what it has not seen, with its thoughts and with a budget of none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from openai import OpenAI

from examples.demo import service
from examples.flywheel.run import Difference, compare, finished
from examples.thinking.run import NO_THOUGHTS, Row, right_answers

HERE = Path(__file__).parent
BASE = "smollm2"
SEED_OF_ROWS = 7
COUNTS = {"taught": 200, "train": 24, "valid": 24, "unseen": 100}
"""Rows of the supervised job, of the reinforcement job and its validation, and of the comparison."""
THINKING_SHARE = 0.8
"""Of the taught rows; the others answer at once, so that the model can when it may not think."""
SUPERVISED: dict[str, Any] = {"n_epochs": 1, "batch_size": 8, "dtype": "bfloat16"}
REINFORCEMENT: dict[str, Any] = {
    "n_epochs": 1,
    "batch_size": 4,
    "max_completion_tokens": 64,
    "kl_probe_samples": 2,
    "dtype": "bfloat16",
}
GRADER: dict[str, Any] = json.loads((HERE / "job.json").read_text())["method"]["reinforcement"]["grader"]


class Outcome(NamedTuple):
    """What was trained, and what its thoughts are worth.

    Attributes:
        model: the tuned model.
        taught: the answers of the model of the supervised job, with thoughts.
        thinking: those of the tuned model, with thoughts.
        difference: from no thoughts to thoughts, of the tuned model.
    """

    model: str
    taught: list[float]
    thinking: list[float]
    difference: Difference


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder of SmolLM2-135M-Instruct")
    parser.add_argument("--data", type=Path, default=Path(".thinking"), help="folder for all its state")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7], help="of the reinforcement jobs")
    args = parser.parse_args()
    with service(args.data, keep=False) as up:
        add_model(args.folder, args.data)
        client = OpenAI(base_url=up["url"] + "/v1", api_key=up["api_key"])
        files = write_rows(args.data)
        taught = teach(client, files, print)
        for seed in args.seeds:
            tune_and_measure(client, taught, files, seed, print)
    return 0


def add_model(folder: Path, data: Path) -> None:
    """`cherry models add`: the folder, with a chat template that writes thoughts."""
    cherry = Path(sys.executable).with_name("cherry")
    template = HERE / "smollm2.jinja"
    options = ["--template", str(template), "--replace", "--data", str(data)]
    subprocess.run([str(cherry), "models", "add", BASE, str(folder), *options], check=True)


def teach(client: OpenAI, files: dict[str, Path], say: Callable[[str], None]) -> str:
    """A supervised job on answers, most of them with their thoughts."""
    file = client.files.create(file=files["taught"], purpose="fine-tune")
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": SUPERVISED}}
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=file.id, suffix="taught", seed=SEED_OF_ROWS, method=method
    )
    return finished(client, job.id, say)


def tune_and_measure(
    client: OpenAI, taught: str, files: dict[str, Path], seed: int, say: Callable[[str], None]
) -> Outcome:
    """Tune the taught model, then compare on the unseen sums."""
    return measure(client, taught, tune(client, taught, files, seed, say), files, seed, say)


def tune(client: OpenAI, model: str, files: dict[str, Path], seed: int, say: Callable[[str], None]) -> str:
    """A reinforcement job from the taught model; the grader sees the answer alone."""
    train, valid = (client.files.create(file=files[name], purpose="fine-tune") for name in ("train", "valid"))
    method: Any = {
        "type": "reinforcement",
        "reinforcement": {"grader": GRADER, "hyperparameters": REINFORCEMENT},
    }
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=train.id,
        validation_file=valid.id,
        suffix="tuned",
        seed=seed,
        method=method,
    )
    return finished(client, job.id, say)


def measure(
    client: OpenAI, taught: str, model: str, files: dict[str, Path], seed: int, say: Callable[[str], None]
) -> Outcome:
    """Ask both models the unseen sums, the tuned one also with its thoughts closed."""
    unseen = [json.loads(line) for line in files["unseen"].read_text().splitlines()]
    before = right_answers(client, taught, unseen, seed, {})
    closed, thinking = (right_answers(client, model, unseen, seed, budget) for budget in (NO_THOUGHTS, {}))
    found = compare(closed, thinking)
    say(f"Right of {len(unseen)} unseen: taught {sum(before):.0f}, tuned {sum(thinking):.0f} with thoughts")
    say(f"and {sum(closed):.0f} without; p = {found.p:.4f}")
    return Outcome(model, before, thinking, found)


def write_rows(folder: Path) -> dict[str, Path]:
    """Writes each set to a file of JSON lines; no sum comes twice."""
    made = problems(Random(SEED_OF_ROWS))
    files = {}
    for name, count in COUNTS.items():
        rows = [next(made) for _ in range(count)]
        if name != "taught":
            rows = [as_asked(row) for row in rows]
        files[name] = folder / f"smollm2-{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files


def problems(rng: Random) -> Iterator[Row]:
    """Sums with their solution as an answer, most with thoughts, each once."""
    seen = set()
    while True:
        first, *others = numbers = (rng.randint(11, 60), *(rng.randint(2, 9) for _ in range(3)))
        if numbers in seen:
            continue
        seen.add(numbers)
        thoughts = "\n".join(steps(first, others)) if rng.random() < THINKING_SHARE else ""
        solution = {"role": "assistant", "reasoning_content": thoughts, "content": str(sum(numbers))}
        yield {"messages": [{"role": "user", "content": " + ".join(map(str, numbers))}, solution]}


def steps(total: int, others: Sequence[int]) -> Iterator[str]:
    """What is written down on the way to a sum, one number after the other."""
    for number in others:
        yield f"{total} + {number} = {total + number}"
        total += number


def as_asked(row: Row) -> Row:
    """The problem without its solution, as reinforcement takes it."""
    question, solution = row["messages"]
    return {"messages": [question], "reference": solution["content"]}


if __name__ == "__main__":
    sys.exit(main())

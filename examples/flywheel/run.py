"""The data flywheel, once around: train, serve, collect corrections, train again from the first result.

    python -m examples.flywheel.run

The first job teaches the built-in model to fill in profiles as JSON (the demo's task). It is served, and
people also ask it plain questions, "Where does this person live?", which it answers badly. Every request is
stored; the people who asked say what was right and correct what was wrong. Of that a data set is made, the
next job trains on it from the first job's model, and both models are measured on prompts that neither has
seen.

All of it is the official client, and three endpoints of our own: feedback, datasets/from-stored and
datasets/{id}.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev
from time import sleep
from typing import Any, NamedTuple

from openai import OpenAI

from examples.demo import HYPERPARAMETERS, PEOPLE, TERMINAL, service

HERE = Path(__file__).parent
OLD, NEW = "profile", "home"
"""What the first job was trained for, and what people correct."""
GRADERS: dict[str, Any] = {
    OLD: json.loads((PEOPLE / "grader.json").read_text()),
    NEW: {
        "type": "string_check",
        "name": "home",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.reference}}",
    },
}
AT_ONCE = 8
FLIPS = 10_000
"""Random assignments of signs behind a p-value: it is then at least 1 in 10,001."""

Row = dict[str, Any]


class Difference(NamedTuple):
    """How the second model's rewards differ from the first one's, prompt by prompt."""

    before: float
    after: float
    low: float
    high: float
    p: float
    """Of so large a gain by chance alone (one-sided, paired, signs flipped at random)."""


class Outcome(NamedTuple):
    """What went around."""

    first: str
    second: str
    dataset: Any
    differences: dict[str, Difference]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path(".flywheel"), help="folder for all its state (default .flywheel)"
    )
    args = parser.parse_args()
    with service(args.data, keep=False) as up:
        turn(OpenAI(base_url=up["url"] + "/v1", api_key=up["api_key"]), print)
    return 0


def turn(client: OpenAI, say: Callable[[str], None]) -> Outcome:
    """Go around once."""
    requests, unseen = read_rows("requests.jsonl"), read_rows("unseen.jsonl")
    first = train_first(client, say)
    counts = serve_and_collect(client, first, requests)
    say(f"Served {len(requests)} requests: {counts['right']} right, {counts['corrected']} corrected")
    dataset = make_dataset(client, unseen)
    report = dataset["report"]
    say(f"{dataset['id']}: {report['rows']} rows in {dataset['file_id']}, left out {report['left_out']}")
    second = train_again(client, first, dataset["file_id"], say)
    differences = measure(client, first, second, unseen)
    for kind, found in differences.items():
        say(
            f"{kind}: {found.before:.3f} before, {found.after:.3f} after; difference"
            f" {found.after - found.before:+.3f} ({found.low:+.3f} to {found.high:+.3f}), p = {found.p:.4f}"
        )
    return Outcome(first, second, client.get(f"/datasets/{dataset['id']}", cast_to=object), differences)


def read_rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


def train_first(client: OpenAI, say: Callable[[str], None]) -> str:
    """Reinforcement on profiles, as in the demo."""
    files = [
        client.files.create(file=PEOPLE / name, purpose="fine-tune").id
        for name in ("train.jsonl", "valid.jsonl")
    ]
    block = {"grader": GRADERS[OLD], "hyperparameters": HYPERPARAMETERS}
    method: Any = {"type": "reinforcement", "reinforcement": block}
    job = client.fine_tuning.jobs.create(
        model="cherry-nano",
        training_file=files[0],
        validation_file=files[1],
        suffix="first",
        seed=7,
        method=method,
    )
    return finished(client, job.id, say)


def serve_and_collect(client: OpenAI, model: str, requests: Sequence[Row]) -> dict[str, int]:
    """Answer what people ask, store it, and keep what they say of it."""

    def ask_and_judge(row: Row) -> str:
        completion = client.chat.completions.create(
            model=model,
            messages=row["messages"],
            temperature=0,
            max_completion_tokens=96,
            store=True,
            metadata={"kind": row["kind"]},
        )
        said = judged(completion.choices[0].message.content or "", row)
        client.post("/feedback", body={"completion_id": completion.id, **said}, cast_to=object)
        return "corrected" if "correction" in said else "right"

    outcomes = [ask_and_judge(row) for row in requests]  # one by one: rows are in the order of requests
    return {name: outcomes.count(name) for name in ("right", "corrected")}


def judged(answer: str, row: Row) -> dict[str, Any]:
    """What the person who asked says: full marks, or none and what it should have been."""
    if answer == row["answer"]:
        return {"reward": 1.0}
    return {"reward": 0.0, "correction": row["answer"]}


def make_dataset(client: OpenAI, unseen: Sequence[Row]) -> Any:
    """Have a training file made of what is stored; none of its prompts is one that is measured on."""
    held_out = "\n".join(
        json.dumps({"messages": [*row["messages"], {"role": "assistant", "content": row["answer"]}]})
        for row in unseen
    )
    file = client.files.create(file=("unseen.jsonl", held_out.encode()), purpose="fine-tune")
    body = {
        "format": "supervised",
        "filter": {"feedback": ["reward", "correction"]},
        "validation_file": file.id,
        "redact": (HERE / "redact.py").read_text(),
    }
    dataset: Any = client.post("/datasets/from-stored", body=body, cast_to=object)
    while dataset["status"] not in TERMINAL:
        sleep(0.2)
        dataset = client.get(f"/datasets/{dataset['id']}", cast_to=object)
    if dataset["status"] != "succeeded":
        raise SystemExit(f"The data set {dataset['status']}: {dataset['error']}")
    return dataset


def train_again(client: OpenAI, model: str, training_file: str, say: Callable[[str], None]) -> str:
    """Supervised, from the first job's model, on what it did right and what it should have done.

    At half the rate of the first job: what that has learnt shall stay.
    """
    settings = {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": 1}
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": settings}}
    job = client.fine_tuning.jobs.create(
        model=model, training_file=training_file, suffix="second", seed=7, method=method
    )
    return finished(client, job.id, say)


def finished(client: OpenAI, job_id: str, say: Callable[[str], None]) -> str:
    """Wait for a job, and return its model."""
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in TERMINAL:
        sleep(0.5)
    if job.status != "succeeded" or job.fine_tuned_model is None:
        raise SystemExit(f"The job {job_id} {job.status}: {job.error.message if job.error else ''}")
    say(f"{job_id} has trained {job.fine_tuned_model}")
    return job.fine_tuned_model


def measure(client: OpenAI, first: str, second: str, unseen: Sequence[Row]) -> dict[str, Difference]:
    """Compare both models on the same prompts, by kind."""
    found = {}
    for kind in (NEW, OLD):
        rows = [row for row in unseen if row["kind"] == kind]
        found[kind] = compare(*(rewards(client, model, rows) for model in (first, second)))
    return found


def rewards(client: OpenAI, model: str, rows: Sequence[Row]) -> list[float]:
    """The graded greedy answer of a model to each prompt."""

    def graded(row: Row) -> float:
        completion = client.chat.completions.create(
            model=model, messages=row["messages"], temperature=0, max_completion_tokens=96
        )
        graded = client.fine_tuning.alpha.graders.run(
            grader=GRADERS[row["kind"]],
            model_sample=completion.choices[0].message.content or "",
            item={"reference": row["answer"]},
        )
        return graded.reward

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(graded, rows))


def compare(before: Sequence[float], after: Sequence[float]) -> Difference:
    """The paired difference of two models: its 95 % interval, and the p-value of a sign-flip test."""
    differences = [b - a for a, b in zip(before, after, strict=True)]
    mean, error = fmean(differences), stdev(differences) / len(differences) ** 0.5
    rng = random.Random(0)
    flipped = (fmean(d if rng.random() < 0.5 else -d for d in differences) for _ in range(FLIPS))
    as_large = sum(value >= mean - 1e-12 for value in flipped)
    p = (as_large + 1) / (FLIPS + 1)
    return Difference(fmean(before), fmean(after), mean - 1.96 * error, mean + 1.96 * error, p)


if __name__ == "__main__":
    sys.exit(main())

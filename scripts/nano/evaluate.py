"""How good is it: `python -m scripts.nano.evaluate MODEL_FOLDER`.

Prints, per family and for the demo rows, the reward of the greedy answer, the mean of eight samples at
temperature 1, and the best of the eight. All rows are unseen: people are made of held-out names, everything
else is drawn with a seed that training does not use.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.nano import data
from scripts.nano.bios import RIGHT_ONLY
from scripts.nano.examples import VALID_POOL, held_out_bio
from scripts.nano.scoring import score

SAMPLES = 8


@dataclass(frozen=True)
class Question:
    """Messages to answer and the right answer."""

    messages: list[dict[str, str]]
    right: str


@dataclass(frozen=True)
class Result:
    """Rewards of one set of questions."""

    greedy: float
    sampled: float
    best: float


def family_questions(family: str, count: int, seed: int) -> list[Question]:
    """First turns of unseen conversations."""
    rng = Random(f"evaluate/{seed}/{family}")
    questions = []
    for _ in range(count):
        bio = held_out_bio(rng, VALID_POOL) if family.startswith("people") else None
        turn = data.conversation(rng, family, RIGHT_ONLY, bio)[0]
        questions.append(Question([{"role": "user", "content": turn.prompt}], turn.right))
    return questions


def demo_questions(path: Path) -> list[Question]:
    """The rows of a demo file."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Question(row["messages"], json.dumps(row["reference"])) for row in rows]


def answer(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    sample: bool,
    prefix: str = "",
) -> list[str]:
    """One answer each; `prefix` is put into the model's mouth."""
    answers: list[str] = []
    for start in range(0, len(questions), 64):
        part = questions[start : start + 64]
        texts = [
            tokenizer.apply_chat_template(q.messages, tokenize=False, add_generation_prompt=True) + prefix
            for q in part
        ]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=100,
                do_sample=sample,
                temperature=1.0 if sample else None,
                top_k=0 if sample else None,
            )
        tails = out[:, inputs["input_ids"].shape[1] :]
        answers += [prefix + text for text in tokenizer.batch_decode(tails, skip_special_tokens=True)]
    return answers


def scores(answers: Sequence[str], questions: Sequence[Question]) -> list[float]:
    """The mark of each answer."""
    return [score(text, question.right) for text, question in zip(answers, questions, strict=True)]


def evaluate(model: Any, tokenizer: Any, questions: Sequence[Question]) -> Result:
    """Greedy, sampled and best-of-eight reward."""
    greedy = scores(answer(model, tokenizer, questions, sample=False), questions)
    repeated = [q for q in questions for _ in range(SAMPLES)]
    sampled = scores(answer(model, tokenizer, repeated, sample=True), repeated)
    best = [max(sampled[i : i + SAMPLES]) for i in range(0, len(sampled), SAMPLES)]
    return Result(fmean(greedy), fmean(sampled), fmean(best))


def load(folder: Path) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=64, help="questions per family")
    parser.add_argument("--demo", type=Path, default=Path("examples/people"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="*", default=data.FAMILIES)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    model, tokenizer = load(arguments.model)
    sets = {name: family_questions(name, arguments.count, arguments.seed) for name in arguments.families}
    for split in ("train", "valid"):
        sets[f"demo {split}"] = demo_questions(arguments.demo / f"{split}.jsonl")
    print("set               greedy  sampled  best of 8")
    for name, questions in sets.items():
        result = evaluate(model, tokenizer, questions)
        print(f"{name:<17} {result.greedy:>6.3f}  {result.sampled:>7.3f}  {result.best:>9.3f}", flush=True)


if __name__ == "__main__":
    main()

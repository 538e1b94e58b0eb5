"""How good is it: `python -m scripts.nano_think.evaluate MODEL_FOLDER`.

Prints, per family and for the rows of examples/thinking and examples/tools, the share of right answers with
thoughts and with closed ones, greedy and sampled at temperature 1. For rows with tools an answer counts when
a call has brought it. All questions are drawn with a seed that training does not use.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch

from scripts.nano.evaluate import load
from scripts.nano_think import arithmetic, lookups, tools
from scripts.nano_think.tools import NOT_FOUND
from scripts.nano_think.turns import RIGHT_ONLY, Asked

SAMPLES, MOST_TURNS, AT_ONCE = 4, 3, 64
MAX_NEW_TOKENS = 160
"""The longest thoughts in the training stream are some 120 tokens."""


@dataclass(frozen=True)
class Question:
    """What is asked, the right answer, and what the tools answer to which call."""

    messages: list[dict[str, Any]]
    right: str
    tools: list[Any] = field(default_factory=list)
    results: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Episode:
    """A question on its way to an answer."""

    question: Question
    messages: list[dict[str, Any]]
    has_called: bool = False
    answer: str | None = None

    @property
    def is_right(self) -> bool:
        is_right = (self.answer or "").strip() == self.question.right
        return is_right and (self.has_called or not self.question.tools)

    def take(self, said: dict[str, Any]) -> None:
        """Goes on from what the model has said."""
        self.messages.append(said)
        for call in said.get("tool_calls", []):
            key = json.dumps(call["function"]["arguments"], sort_keys=True)
            result = self.question.results.get(key)
            self.has_called |= result is not None
            self.messages.append({"role": "tool", "content": result or NOT_FOUND[0]})
        if not said.get("tool_calls"):
            self.answer = said.get("content", "")


def family_questions(family: str, count: int, seed: int) -> list[Question]:
    """Unseen questions of a family."""
    rng = Random(f"evaluate/{seed}/{family}")
    if family == "tools":
        return [_tool_question(rng) for _ in range(count)]
    make = {"arithmetic": arithmetic.arithmetic, "lookups": lookups.lookups}[family]
    questions = []
    while len(questions) < count:
        made = make(rng, RIGHT_ONLY)
        if len(made.turns) == 2 and isinstance(asked := made.turns[0], Asked):
            questions.append(Question([{"role": "user", "content": asked.text}], made.right))
    return questions


def _tool_question(rng: Random) -> Question:
    task = tools.random_task(rng)
    text = rng.choice(task.function.kind.questions).format(task.key)
    key = json.dumps({task.function.argument: task.key})
    results = {key: tools.written(rng, task, task.value)}
    return Question([{"role": "user", "content": text}], task.value, list(task.offered(rng)), results)


def example_questions(folder: Path, split: str) -> list[Question]:
    """The rows of an example, with the price list of its tool server."""
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    prices = folder / "prices.json"
    known = json.loads(prices.read_text()) if prices.exists() else {}
    results = {json.dumps({"item": item}): str(price) for item, price in known.items()}
    return [Question(row["messages"], row["reference"], row.get("tools", []), results) for row in rows]


def episodes(
    model: Any, tokenizer: Any, questions: Sequence[Question], *, sample: bool, thinking: bool
) -> list[Episode]:
    """Every question to its end."""
    out = [Episode(question, list(question.messages)) for question in questions]
    for _ in range(MOST_TURNS):
        going = [episode for episode in out if episode.answer is None]
        for start in range(0, len(going), AT_ONCE):
            _turn(model, tokenizer, going[start : start + AT_ONCE], sample=sample, thinking=thinking)
    return out


def _turn(model: Any, tokenizer: Any, going: list[Episode], *, sample: bool, thinking: bool) -> None:
    prompts = [
        tokenizer.apply_chat_template(
            episode.messages,
            tools=episode.question.tools or None,
            add_generation_prompt=True,
            enable_thinking=thinking,
            return_dict=False,
        )
        for episode in going
    ]
    inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    settings = {"do_sample": True, "temperature": 1.0, "top_k": 0} if sample else {"do_sample": False}
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, **settings)
    for episode, prompt, row in zip(going, prompts, out[:, inputs["input_ids"].shape[1] :], strict=True):
        ids = [token for token in row.tolist() if token != tokenizer.pad_token_id]
        try:
            said = tokenizer.parse_response(ids, prefix=prompt)
        except ValueError:  # a call that is no JSON
            said = {"role": "assistant", "content": tokenizer.decode(ids)}
        episode.take(said)


def shares(model: Any, tokenizer: Any, questions: Sequence[Question]) -> list[float]:
    """Right answers: with thoughts greedy and sampled, then with closed ones."""
    found = []
    for thinking in (True, False):
        for sample in (False, True):
            asked = [question for question in questions for _ in range(SAMPLES if sample else 1)]
            ended = episodes(model, tokenizer, asked, sample=sample, thinking=thinking)
            found.append(fmean(episode.is_right for episode in ended))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=64, help="questions per family")
    parser.add_argument("--examples", type=Path, default=Path("examples"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    model, tokenizer = load(arguments.model)
    families = ("arithmetic", "lookups", "tools")
    sets = {name: family_questions(name, arguments.count, arguments.seed) for name in families}
    for name in ("thinking", "tools"):
        if (folder := arguments.examples / name).is_dir():
            sets[f"examples/{name}"] = example_questions(folder, "unseen")
    print("                   with thoughts     closed thoughts")
    print("set                greedy  sampled   greedy  sampled")
    for name, questions in sets.items():
        marks = "   ".join(f"{share:>6.3f}" for share in shares(model, tokenizer, questions))
        print(f"{name:<17}  {marks}", flush=True)


if __name__ == "__main__":
    main()

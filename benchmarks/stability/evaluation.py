"""Judges the models that a run delivers, without anything the run has said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.stability.canary import canary_loss
from benchmarks.stability.material import Material
from benchmarks.stability.plan import Run
from benchmarks.stability.sampler import Answer, Loaded, load, prompt_tokens, sample, seed_of

SAMPLES = 8
"""Answers to each test row, at temperature 1."""
KL_ANSWERS = 1
"""Of each row's answers, those on which the KL to the base is measured: 48, as many as test rows."""


class Judged(NamedTuple):
    """What the evaluation found of one model.

    Attributes:
        worth, meant: mean over the samples of each test row.
        canary: nats per token on text of no job.
        kl: exact KL to the base in nats per token, at the model's own answers.
        shown: one answer, for people.
    """

    worth: list[float]
    meant: list[float]
    canary: float
    kl: float
    tokens: float
    shown: str

    def facts(self) -> dict[str, Any]:
        """As a results file holds it."""
        rounded = {"worth": _rounded(self.worth), "meant": _rounded(self.meant)}
        return {**self._asdict(), **rounded}


def judge(
    run: Run, material: Material, base_folder: Path, models: Mapping[str, Callable[[], Loaded] | None]
) -> dict[str, dict[str, Any] | None]:
    """Judges the base and each delivered model on the same rows, with the same random numbers.

    None stands for the base, before and after.
    """
    base = load(base_folder)
    found: dict[str, dict[str, Any] | None] = {"base": _judge(run, material, base, base).facts()}
    for name, get in models.items():
        found[name] = None if get is None else _judge(run, material, get(), base).facts()
    return found


def _judge(run: Run, material: Material, loaded: Loaded, base: Loaded) -> Judged:
    prompts = [prompt_tokens(base, item["messages"]) for item in material.test]
    seed = seed_of("test", run.data.name, run.seed)
    answers = sample(loaded, prompts, samples=SAMPLES, max_tokens=run.task.max_tokens, seed=seed)
    every = [answer for row in answers for answer in row]
    return Judged(
        worth=_means(material.test, answers, material.worth),
        meant=_means(material.test, answers, material.meant),
        canary=canary_loss(loaded, run.task.model),
        kl=0.0 if loaded is base else exact_kl(loaded, base, prompts, [row[:KL_ANSWERS] for row in answers]),
        tokens=sum(len(answer.tokens) for answer in every) / len(every),
        shown=answers[0][0].text[:120],
    )


def validation_reward(
    loaded: Loaded, items: Sequence[Any], grade: Any, *, max_tokens: int, seed: int
) -> float:
    """Returns the mean grade of samples on a job's own validation rows; failed grades are left out."""
    prompts = [prompt_tokens(loaded, item["messages"]) for item in items]
    answers = sample(loaded, prompts, samples=SAMPLES, max_tokens=max_tokens, seed=seed)
    grades = [grade(each.text, item) for item, row in zip(items, answers, strict=True) for each in row]
    known: list[float] = [value for value in grades if value is not None]
    return sum(known) / len(known)


@torch.inference_mode()
def exact_kl(
    loaded: Loaded, base: Loaded, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Answer]]
) -> float:
    """Returns the mean over answers of the KL over the whole vocabulary at each of their tokens."""
    means = []
    for prompt, row in zip(prompts, answers, strict=True):
        for answer in row:
            ids = torch.tensor([[*prompt, *answer.tokens]])
            ours, theirs = (_logprobs(model, ids, len(prompt)) for model in (loaded.model, base.model))
            means.append(float((ours.exp() * (ours - theirs)).sum(-1).mean()))
    return sum(means) / len(means)


def _logprobs(model: Any, ids: Tensor, start: int) -> Tensor:
    logits: Tensor = model(input_ids=ids).logits[0, start - 1 : -1]
    return logits.double().log_softmax(-1)


def _means(items: Sequence[Any], answers: Sequence[Sequence[Answer]], worth: Any) -> list[float]:
    return [
        sum(worth(answer.text, item) for answer in row) / len(row)
        for item, row in zip(items, answers, strict=True)
    ]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]

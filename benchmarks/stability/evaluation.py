"""Judges the models that a run delivers, without anything the run has said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.stability.canary import canary_loss
from benchmarks.stability.material import Material
from benchmarks.stability.plan import Run, seed_of
from benchmarks.stability.sampler import Answer, Loaded, load, prompt_tokens, sample

SAMPLES = 8
"""Answers to each test row, at temperature 1."""
KL_ROWS = 16
"""Rows of which one answer each measures the KL to the base. It is shown, and no bar holds it."""


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


class Judge:
    """Judges the base and each delivered model on the same rows, with the same random numbers."""

    def __init__(self, kl_rows: int = KL_ROWS) -> None:
        self._kl_rows = kl_rows
        self._bases: dict[tuple[str, int], dict[str, Any]] = {}

    def judge(
        self, run: Run, material: Material, folder: Path, models: Mapping[str, Callable[[], Loaded] | None]
    ) -> dict[str, dict[str, Any] | None]:
        """Returns what is found of the base and of each model; None stands for the base again.

        The base has the same rows and random numbers at each rate, so it is judged once.
        """
        base, key = load(folder), (run.data.name, run.seed)
        if key not in self._bases:
            self._bases[key] = _judge(run, material, base, base, self._kl_rows).facts()
        found: dict[str, dict[str, Any] | None] = {"base": self._bases[key]}
        for name, get in models.items():
            found[name] = None if get is None else _judge(run, material, get(), base, self._kl_rows).facts()
        return found


def _judge(run: Run, material: Material, loaded: Loaded, base: Loaded, kl_rows: int) -> Judged:
    prompts = [prompt_tokens(base, item["messages"]) for item in material.test]
    seed = seed_of("test", run.data.name, run.seed)
    answers = sample(loaded, prompts, samples=SAMPLES, max_tokens=run.task.max_tokens, seed=seed)
    every = [answer for row in answers for answer in row]
    return Judged(
        worth=_means(material.test, answers, material.worth),
        meant=_means(material.test, answers, material.meant),
        canary=canary_loss(loaded, run.task.model),
        kl=0.0 if loaded is base else exact_kl(loaded, base, prompts[:kl_rows], [row[0] for row in answers]),
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
    loaded: Loaded, base: Loaded, prompts: Sequence[Sequence[int]], answers: Sequence[Answer]
) -> float:
    """Returns the mean over the answers of the KL over the whole vocabulary at each of their tokens."""
    means = []
    for prompt, answer in zip(prompts, answers, strict=False):
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

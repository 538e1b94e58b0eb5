"""Checks the examples of a supervised or dpo job against its model, and resolves its config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from methods.hyperparameters import Facts
from methods.resolve import resolve_tuning
from methods.rows import Row
from methods.tune_config import TuneConfig
from methods.tuning_rows import too_few
from workers.jobs.job_data import TRAINING, Asked, DataFile, JobInvalid, ModelShape

DEVICES = {"gpus": "cuda", "processes": "cpu"}
Data = tuple[DataFile | None, Sequence[Row]]


class Resolved(NamedTuple):
    config: TuneConfig
    n_examples: int


def resolve(
    job: Asked, folder: str, shape: ModelShape, tokenizer: Any, training: Data, validation: Data
) -> Resolved:
    """The run that a job means. Raises `JobInvalid` for too few rows, or one that does not fit the model."""
    method = job.method["type"]
    if lacks := too_few(method, len(training[1])):
        assert training[0] is not None, "a job has a training file"
        raise JobInvalid("invalid_n_examples", f"{lacks}: {training[0].shown}.", TRAINING)
    lengths = [_prompt_lengths(method, tokenizer, shape.context, *data) for data in (training, validation)]
    config = resolve_tuning(
        job.method,
        Facts(shape.hidden_size, shape.context, max(lengths[0] + lengths[1]), n_train=len(lengths[0])),
        model=job.model,
        model_path=folder,
        seed=job.seed,
        device=DEVICES[next(iter(job.resources))] if job.resources else None,
    )
    return Resolved(config, len(lengths[0]))


def _prompt_lengths(
    method: str, tokenizer: Any, context: int, data_file: DataFile | None, rows: Sequence[Row]
) -> list[int]:
    """Tokens of each example's prompt, as the training will see them."""
    if data_file is None:
        return []
    from workers.training.base.errors import PromptInvalid
    from workers.tuning.examples import make_examples, make_pairs

    name = data_file.param.removesuffix("_file")
    try:
        if method == "dpo":
            return [len(pair.prompt) for pair in make_pairs(rows, tokenizer, context, name)]
        return [example.n_prompt for example in make_examples(rows, tokenizer, context, name)]
    except PromptInvalid as problem:
        raise data_file.invalid(f"does not fit the model. {problem}") from None

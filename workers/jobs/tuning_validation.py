"""Checks the examples of a supervised or dpo job against its model, and resolves its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from methods.hyperparameters import Facts
from methods.resolve import resolve_tuning
from methods.rows import Row
from methods.tune_config import TuneConfig
from methods.tuning_rows import too_few
from workers.jobs.job_data import TRAINING, Asked, DataFile, JobInvalid, ModelShape
from workers.jobs.model_validation import embedding_rows, load_tokenizer

if TYPE_CHECKING:
    from workers.training.row_faults import RowDoubt

DEVICES = {"gpus": "cuda", "processes": "cpu"}
Data = tuple[DataFile | None, Sequence[Row]]


class Length(NamedTuple):
    """Holds the tokens of an example: of its prompt, and of all; of a pair of completions, of the longer."""

    prompt: int
    whole: int


class Resolved(NamedTuple):
    """Holds the run that a job means.

    Attributes:
        longest: tokens of the longest example; of a pair, of the longer completion with its prompt.
        doubts: what the model's template makes of rows that is doubtful, with the file it is in.
    """

    config: TuneConfig
    n_examples: int
    longest: int
    doubts: list[tuple[DataFile, RowDoubt]]


def resolve(job: Asked, folder: Path, shape: ModelShape, training: Data, validation: Data) -> Resolved:
    """The run that a job means. Raises `JobInvalid` for too few rows, or one that does not fit the model."""
    tokenizer, vocabulary = load_tokenizer(folder), embedding_rows(folder)
    method = job.method["type"]
    if lacks := too_few(method, len(training[1])):
        assert training[0] is not None, "a job has a training file"
        raise JobInvalid("invalid_n_examples", f"{lacks}: {training[0].shown}.", TRAINING)
    both = [
        _rendered(method, tokenizer, (shape.context, vocabulary), *data) for data in (training, validation)
    ]
    lengths = [[one.prompt for one in found] for found, _ in both]
    longest = max(one.whole for found, _ in both for one in found)
    config = resolve_tuning(
        job.method,
        Facts(shape.hidden_size, shape.context, max(lengths[0] + lengths[1]), n_train=len(lengths[0])),
        model=job.model,
        model_path=str(folder),
        seed=job.seed,
        device=DEVICES[next(iter(job.resources))] if job.resources else None,
    )
    doubts = [
        (data[0], doubt)
        for data, (_, found) in zip((training, validation), both, strict=True)
        if data[0] is not None
        for doubt in found
    ]
    return Resolved(config, len(lengths[0]), longest, doubts)


def _rendered(
    method: str,
    tokenizer: Any,
    limits: tuple[int, int | None],
    data_file: DataFile | None,
    rows: Sequence[Row],
) -> tuple[list[Length], list[RowDoubt]]:
    """Returns the lengths of each example, as the training will see it, and what is doubtful.

    `limits` are the model's context and how many tokens it has embedding rows for.
    """
    if data_file is None:
        return [], []
    from workers.training.base.errors import PromptInvalid
    from workers.tuning.examples import render_examples, render_pairs

    name, (context, vocabulary) = data_file.param.removesuffix("_file"), limits
    try:
        if method == "dpo":
            pairs, doubts = render_pairs(rows, tokenizer, context, name, vocabulary)
            return [Length(len(pair.prompt), pair.n_longer) for pair in pairs], doubts
        examples, doubts = render_examples(rows, tokenizer, context, name, vocabulary)
        return [Length(example.n_prompt, len(example.tokens)) for example in examples], doubts
    except PromptInvalid as problem:
        raise data_file.invalid(f"does not fit the model. {problem}") from None

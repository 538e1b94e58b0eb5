"""What is valid about a job, but looks wrong; and what of it is seen in its two files together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from methods.rows import Row
from workers.jobs.job_data import VALIDATION

FAR_RATE = 10.0
"""A learning rate that is so many times the one of "auto", or so many times less, is doubted. In the trial of
96 runs most policies collapsed at ten times the rate, and at a tenth they moved little.
"""
ROUNDING = 1e-9
"""What a rate that was asked for as a multiple of the usual one may be off by rounding."""


class Doubt(NamedTuple):
    """Something that is valid, but looks wrong. `lines` are those of the file that `param` names."""

    code: str
    message: str
    param: str | None = None
    lines: tuple[int, ...] = ()


def doubts_about_files(train_rows: Sequence[Row], valid_rows: Sequence[Row]) -> Iterator[Doubt]:
    """Yields signs that the two files were swapped or overlap."""
    if len(valid_rows) > len(train_rows):
        yield Doubt(
            "files_swapped",
            f"The validation file has more rows ({len(valid_rows)}) than the training file "
            f"({len(train_rows)}). Were the two swapped?",
            VALIDATION,
        )
    trained = {_prompt_of(row) for row in train_rows}
    shared = tuple(row.line for row in valid_rows if _prompt_of(row) in trained)
    if shared:
        yield Doubt(
            "validation_in_training",
            f"{len(shared)} of {len(valid_rows)} validation prompts are in the training file too "
            f"(the first on line {shared[0]}): on these, validation measures memory.",
            VALIDATION,
            shared,
        )


def doubts_about_rate(rate: float, usual: float, param: str) -> Iterator[Doubt]:
    """Says so if a learning rate is far from the `usual` one that "auto" takes."""
    times = rate / usual
    if abs(math.log(times)) < math.log(FAR_RATE) - ROUNDING:
        return
    is_high = times > 1
    how = f"{_in_words(times)} times" if is_high else f"a {_in_words(1 / times)}th of"
    outcome = "is likely to destroy the model" if is_high else "may learn next to nothing"
    yield Doubt(
        "learning_rate_far",
        f'The learning rate {rate:.3g} is {how} what "auto" takes for this model'
        f' ({usual:.3g}): the job {outcome}. Leave the rate to "auto" unless this is meant.',
        param,
    )


def _in_words(times: float) -> str:
    """Returns 12.5, or 1,000."""
    return f"{times:,.0f}" if times >= 100 else f"{times:.3g}"


def _prompt_of(row: Row) -> str:
    """What the model is asked; of a conversation to learn, all of it."""
    return json.dumps(row.item["input"]["messages"] if "messages" not in row.item else row.item["messages"])

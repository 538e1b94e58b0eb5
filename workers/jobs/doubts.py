"""What is valid about a job, but looks wrong; and what of it is seen in its two files together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from methods.rows import Row
from workers.jobs.job_data import VALIDATION


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


def _prompt_of(row: Row) -> str:
    """What the model is asked; of a conversation to learn, all of it."""
    return json.dumps(row.item["input"]["messages"] if "messages" not in row.item else row.item["messages"])

"""Answers of 17 models to IFEval's 541 prompts, with the verdicts that were published with them.

The data: `data/en_input_data.jsonl` and `evaluations/en_*/eval_results_strict.jsonl` of M-IFEval (Apache-2.0,
github.com/shisa-ai/M-IFEval), laid as they are into `data/m-ifeval` of the shared data.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graders.instructions.grader import MAX_TEXT, instructions_of
from tests.shared_data import shared_path

VERDICTS = 14_178

TRUE_THERE = {
    "change_case:english_capital": 1,
    "detectable_format:number_bullet_lists": 3,
    "keywords:letter_frequency": 3,
    "language:response_language": 15,
    "length_constraints:nth_paragraph_first_word": 1,
    "length_constraints:number_sentences": 5,
    "length_constraints:number_words": 16,
}
"""Verdicts, by instruction, that are true there and false here; docs/graders.md says why."""
TRUE_HERE = {
    "change_case:capital_word_frequency": 1,
    "change_case:english_capital": 29,
    "change_case:english_lowercase": 20,
    "detectable_format:number_bullet_lists": 3,
    "keywords:letter_frequency": 10,
    "language:response_language": 8,
    "length_constraints:nth_paragraph_first_word": 7,
    "length_constraints:number_sentences": 17,
    "length_constraints:number_words": 10,
}
DOCS = Path(__file__).parents[3] / "docs" / "graders.md"


def lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip())


def verdicts(folder: Path) -> Iterator[tuple[str, bool, bool]]:
    """Each instruction of each answer: its id, whether it was followed there, and here."""
    rows = {row["prompt"]: row for row in lines(folder / "data" / "en_input_data.jsonl")}
    for file in sorted(folder.glob("evaluations/en_*/eval_results_strict.jsonl")):
        for result in lines(file):
            ids = [name.removeprefix("en:") for name in result["instruction_id_list"]]
            text = (result["response"] or "")[:MAX_TEXT]
            bound = instructions_of({"instruction_id": ids, "kwargs": rows[result["prompt"]]["kwargs"]})
            for one, published in zip(bound, result["follow_instruction_list"], strict=True):
                yield one.id, published, bool(text.strip()) and one.is_followed(text)


@pytest.mark.long
def test_each_difference_from_a_published_verdict_is_known_with_its_reason():
    found = list(verdicts(shared_path("data/m-ifeval")))
    assert len(found) == VERDICTS
    assert Counter(name for name, there, here in found if there and not here) == TRUE_THERE
    assert Counter(name for name, there, here in found if here and not there) == TRUE_HERE


def test_the_page_counts_the_differences():
    counts = sum(TRUE_THERE.values()), sum(TRUE_HERE.values())
    text = " ".join(DOCS.read_text().split())
    assert f"of {VERDICTS:,} published verdicts {VERDICTS - sum(counts):,} agree" in text
    for name in TRUE_THERE.keys() | TRUE_HERE.keys():
        both = f"{TRUE_THERE.get(name, 0)} / {TRUE_HERE.get(name, 0)}"
        assert f"`{name.partition(':')[2]}` | {both} |" in text, f"{name}: {both}"

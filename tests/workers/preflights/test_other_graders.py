"""What a preflight advises where the job's grader gives all answers the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graders import build_grader, parse_grader
from tests.workers.training.support import make_config, reward_groups
from workers.preflights.base_samples import Samples
from workers.preflights.other_graders import in_words, other_graders
from workers.preflights.promises import base_findings, base_numbers
from workers.training.base.types import Group
from workers.training.rewards import sample_of

BARE = {
    "type": "string_check",
    "name": "bare",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
}


def answered(raw: dict[str, Any], reference: str, texts: Sequence[str], prompts: int = 1) -> list[Group]:
    """Returns groups of these answers, graded by a real grader."""
    grader, found = build_grader(parse_grader(raw)), []
    for group in reward_groups([[0.0] * len(texts)] * prompts):
        item = {**group.prompt.item, "reference": reference}
        pairs = zip(group.completions, texts, strict=True)
        completions = tuple(replace(completion, text=text) for completion, text in pairs)
        grades = tuple(grader.grade(sample_of(each), item) for each in completions)
        found.append(Group(replace(group.prompt, item=item), completions, grades))
    return found


SENTENCES = ["17 + 25 = 42.", "The answer is 32.", "It is 42", "17 + 25"]


def test_a_number_in_a_sentence_is_found_by_other_graders() -> None:
    found = other_graders(parse_grader(BARE), answered(BARE, "42", SENTENCES))
    assert {other.name.split("`")[1]: (other.right, other.differing) for other in found} == {
        "string_check": (0.5, 1.0),
        "multi": (0.5, 1.0),
    }
    assert "50% of the reward, and 100% of the prompts" in in_words(found)


def test_json_in_a_fence_is_found_by_its_fields() -> None:
    texts = ['```json\n{"city": "Pisa", "zip": 1}\n```', '{"city": "Pisa", "zip": 1}', "Pisa", "{}"]
    found = other_graders(parse_grader(BARE), answered(BARE, '{"zip": 1, "city": "Pisa"}', texts))
    assert found[0].name.startswith("`fields`")
    assert found[0].differing == 1.0


def test_answers_that_are_wrong_by_every_grader_are_called_wrong() -> None:
    found = other_graders(parse_grader(BARE), answered(BARE, "42", ["41", "It is 40.", "No", "17"]))
    assert "they get the same too" in in_words(found)


@pytest.mark.parametrize("input_template", ["{{sample.output_text}} or {{sample.output_text}}"])
def test_nothing_is_advised_where_the_reference_is_not_known(input_template: str) -> None:
    raw = {**BARE, "input": input_template}
    found = other_graders(parse_grader(raw), answered(raw, "42", SENTENCES))
    assert (found, in_words(found)) == ([], "")


def test_a_flat_reward_names_the_grader_to_take() -> None:
    groups = answered(BARE, "42", [*SENTENCES, *SENTENCES], prompts=32)
    config = make_config(Path("m"), group_size=8, allow_flat_reward=False)
    samples = Samples(groups, list(range(1, 33)))
    base = base_numbers(samples, config)
    found = {one.code: one for one in base_findings(samples, base, config, parse_grader(BARE))}
    assert found["flat_reward"].severity == "error"
    assert "Take another grader: by `" in found["flat_reward"].message

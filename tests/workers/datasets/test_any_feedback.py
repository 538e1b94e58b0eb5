"""Properties of rows, whatever was stored and said: a job takes each, and each knows where it came from."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.tuning_rows import row_check
from tests.properties import examples
from workers.datasets.choosing import Chosen, copies
from workers.datasets.rows import Candidate, candidates
from workers.datasets.stored import Choice, Kept, Said

START = datetime(2026, 12, 1, tzinfo=UTC)
TEXTS = st.sampled_from(["", "4", "5", "four"])


@st.composite
def completions(draw: st.DrawFn) -> list[Kept]:
    """Completions of few prompts, with feedback of every kind on any of their choices."""
    found = []
    for number in range(draw(st.integers(0, 5))):
        choices = draw(st.lists(st.builds(Choice, TEXTS, st.booleans()), min_size=1, max_size=3))
        said = [_said(draw, f"f{number}-{n}", len(choices), n) for n in range(draw(st.integers(0, 3)))]
        asked = draw(st.sampled_from(["2 + 2?", "Who are you?"]))
        messages = [{"role": "user", "content": asked}]
        stored_at = START + timedelta(minutes=number)
        found.append(Kept(f"c{number}", "m", messages, choices, stored_at, tuple(said)))
    return found


def _said(draw: st.DrawFn, feedback_id: str, choices: int, number: int) -> Said:
    return Said(
        feedback_id,
        draw(st.integers(0, choices - 1)),
        draw(st.none() | st.sampled_from([0.0, 0.5, 1.0])),
        draw(st.none() | st.sampled_from(["4", "six"])),
        draw(st.none() | st.sampled_from(["4", {"n": 4}])),
        START + timedelta(hours=number),
    )


@pytest.mark.parametrize("format_", ["reinforcement", "supervised", "dpo"])
@examples(60)
@given(kept=completions(), least=st.none() | st.sampled_from([0.0, 1.0]), references=st.booleans())
def test_rows_are_what_jobs_take_and_know_their_sources(
    format_: str, kept: list[Kept], least: float | None, references: bool
) -> None:
    request: dict[str, Any] = {"filter": {"min_reward": least}, "references": references}
    found = list(candidates(format_, kept, request))
    prompts = {each.messages[0]["content"] for each in kept}
    assert len(found) == (len(prompts) if format_ == "dpo" else len(kept)), "each is a row or has a reason"
    by_id = {each.id: each for each in kept}
    for candidate in (each for each in found if isinstance(each, Candidate)):
        row_check(format_)(candidate.row)
        for source in candidate.sources:
            completion = by_id[source.completion_id]
            assert source.choice < len(completion.choices)
            assert set(source.feedback_ids) <= {said.id for said in completion.said}
        assert candidate.stored_at == max(by_id[s.completion_id].created_at for s in candidate.sources)


@examples(60)
@given(kept=completions(), dedupe=st.sampled_from(["none", "exact", "near"]))
def test_no_prompt_is_lost_and_none_is_left_twice(kept: list[Kept], dedupe: Any) -> None:
    chosen = Chosen()
    chosen.take(candidates("reinforcement", kept, {"filter": {}, "references": False}))
    chosen.sort_for_choice()
    chosen.drop(copies(chosen.rows, "reinforcement", dedupe, []))
    chosen.keep_newest(100)
    left = Counter(row.row["messages"][0]["content"] for row in chosen.rows)
    assert left.keys() == {each.messages[0]["content"] for each in kept}
    assert left.total() + chosen.left_out.total() == len(kept)
    assert dedupe == "none" or not left or max(left.values()) == 1
    assert chosen.rows == sorted(chosen.rows, key=lambda row: row.stored_at)

"""Effort, budget and template variables become what each template has for them."""

from __future__ import annotations

from typing import Any

import pytest

from graders.thoughts import FAMILIES
from methods.hyperparameters import Facts
from methods.resolve import resolve_train
from tests.chat_templates import tokenizer_of
from tests.tiny_model import byte_tokenizer
from workers.training.rendering.family import family_of
from workers.training.rendering.template import template_of, with_variables
from workers.training.rendering.thinking import VariableUnknown, thinking_of
from workers.training.rendering.thought_marks import opening_tag
from workers.training.rendering.variables import variables_read

EFFORTS: dict[tuple[str, str], tuple[dict[str, Any], float | None]] = {
    ("gptoss", "high"): ({"reasoning_effort": "high"}, None),
    ("qwen3_8", "high"): ({"enable_thinking": True, "reasoning_effort": "xhigh"}, None),
    ("muse_glimmer", "low"): ({"reasoning_strength": "low"}, None),
    ("nemotron_3_super", "low"): ({"enable_thinking": True, "low_effort": True}, None),
    ("nemotron_3_super", "high"): ({"enable_thinking": True}, 0.8),
    ("qwen3", "low"): ({"enable_thinking": True}, 0.2),
    ("gemma4_v5", "medium"): ({"enable_thinking": True}, 0.5),
    ("lfm2_2_5_v2", "medium"): ({}, 0.5),
    ("deepseek_r1_distill", "low"): ({}, 0.2),
    ("qwen3", "default"): ({}, None),
}


@pytest.mark.parametrize(("asked", "expected"), EFFORTS.items(), ids=map("-".join, EFFORTS))
def test_an_effort_is_the_templates_variable_or_a_budget(
    asked: tuple[str, str], expected: tuple[dict[str, Any], float | None]
) -> None:
    name, effort = asked
    found = thinking_of(tokenizer_of(name), effort)
    assert (found.variables, found.budget_share) == expected
    assert found.thinks
    assert bool(found.told) == (effort != "default")
    assert all(f"{name}={value!r}" in found.told for name, value in expected[0].items())


def test_no_thinking_is_a_switch_where_there_is_one() -> None:
    off = thinking_of(tokenizer_of("qwen3"), budget=0)
    assert (off.variables, off.thinks) == ({"enable_thinking": False}, False)
    assert thinking_of(tokenizer_of("deepseek_r1_distill"), budget=0).variables == {}


@pytest.mark.parametrize("name", ["gemma4", "gemma4_v5", "qwen3_5_nothink"])
def test_some_models_think_only_when_told(name: str) -> None:
    assert not thinking_of(tokenizer_of(name)).thinks
    assert thinking_of(tokenizer_of(name), given={"enable_thinking": True}).thinks


def test_where_there_are_no_thoughts_a_wish_is_void() -> None:
    found = thinking_of(tokenizer_of("llama3"), "high")
    assert (found.thinks, found.is_void) == (False, True)
    assert found.told == "reasoning_effort changes nothing: the model's chat template shows no thoughts."


def test_variables_are_those_that_the_template_reads() -> None:
    with pytest.raises(
        VariableUnknown,
        match=r"no variable 'enable_thinkin' that a job may set\. It reads: .*enable_thinking",
    ):
        thinking_of(tokenizer_of("qwen3"), given={"enable_thinkin": True})
    with pytest.raises(VariableUnknown, match="no variable 'messages'"):
        thinking_of(tokenizer_of("qwen3"), given={"messages": "x"})
    assert variables_read("{% set a = b | default(1) %}{% set c = c | default(2) %}{{ messages }}") == {
        "b",
        "c",
        "messages",
    }


def test_a_jobs_own_variables_win_and_nothing_of_them_is_saved() -> None:
    tokenizer = tokenizer_of("qwen3_8")
    found = thinking_of(tokenizer, "low", given={"reasoning_effort": "medium"})
    assert found.variables["reasoning_effort"] == "medium"
    told = with_variables(tokenizer, found.variables)
    assert dict(template_of(told, None).variables) == found.variables
    assert dict(template_of(tokenizer, None).variables) == {}
    assert "variables_of_cherry" not in told.init_kwargs


def resolved(facts: Facts, **asked: Any) -> tuple[int, int | None, dict[str, Any]]:
    block = {"grader": {}, "hyperparameters": asked}
    config = resolve_train(
        {"reinforcement": block},
        facts,
        model="m",
        model_path="m",
        seed=1,
        template_kwargs=asked.get("template_kwargs"),
    )
    return config.max_completion_tokens, config.max_thinking_tokens, config.template_kwargs


def test_default_limits_leave_room_for_thoughts() -> None:
    plain = Facts(hidden_size=64, context=8192, longest_prompt=100, n_train=20)
    thinks = plain._replace(thinks=True)
    assert resolved(plain) == (256, None, {})
    assert resolved(thinks) == (256 + 2048, None, {})
    assert resolved(thinks, max_thinking_tokens=100) == (356, 100, {})
    assert resolved(thinks._replace(budget_share=0.5)) == (2304, 1152, {})
    assert resolved(thinks._replace(context=612)) == (512, None, {})
    assert resolved(thinks, template_kwargs={"a": True})[2] == {"a": True}


def test_a_family_is_named_and_how_to_mend_it_told() -> None:
    assert family_of(tokenizer_of("qwen3"))[:3] == ("qwen3", "between <think> and </think>", "understood")
    assert "off unless" in family_of(tokenizer_of("gemma4")).thoughts
    unknown = family_of(byte_tokenizer())
    assert (unknown.template, unknown.calls) == (None, "not understood: no jobs with tools")
    assert "response_template" in unknown.mend


@pytest.mark.parametrize(("opened", "closed"), FAMILIES, ids="".join)
def test_a_text_that_begins_with_closed_thoughts_is_known_by_their_tag(opened: str, closed: str) -> None:
    assert opening_tag(f"\n{opened.upper()}12{closed}13") == opened
    assert opening_tag(f"{opened}12, let me check") == ""
    assert opening_tag(f"12 {opened}12{closed}13") == ""

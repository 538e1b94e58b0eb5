"""Faults that people met with other trainers, on the built-in model: rows, end tokens, answers, templates.

The shared folder has cases of these kinds; without it those of our own here hold the kinds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from methods.rows import Row
from workers.inspect.model import inspect
from workers.training.base.errors import PromptInvalid
from workers.training.model.base_model import end_ids
from workers.training.prompts import make_prompts
from workers.training.rendering.stop_strings import StopStrings

CASES = Path(__file__).parents[3] / "shared/cases/models"
NANO = Path(__file__).parents[2] / "workers/models/cherry_nano"
VOCABULARY = 1280
READS_PARTS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def cases_of(kind: str, *ours: dict[str, Any]) -> list[Any]:
    """Returns the cases of the shared folder, or a skip that names it, and ours."""
    path = CASES / f"{kind}.json"
    if not path.is_file():
        reason = pytest.mark.skip(reason=f"the shared cases are not here: {path.name}")
        return [pytest.param({}, marks=reason, id="shared"), *ours]
    return [*json.loads(path.read_text("utf-8"))["cases"], *ours]


def nano(**changes: Any) -> Any:
    """The built-in model's tokenizer, changed."""
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


@pytest.mark.parametrize(
    "case",
    cases_of(
        "model-special-tokens-in-answers",
        {"written": "<think>a</think>\n\n<|im_start|>"},
        {"written": "<|endoftext|> and <|pad|>on"},
        {"written": "plain"},
    ),
)
def test_what_was_written_is_shown(case: dict[str, Any]) -> None:
    tokenizer = nano()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokens = tokenizer(case["written"], add_special_tokens=False)["input_ids"]
    assert StopStrings(tokenizer, ()).decoded([tokens]) == [case["written"]]


@pytest.mark.parametrize(
    "case",
    cases_of(
        "model-template-eats-the-text",
        {
            "row": {
                "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}]
            },
            "expected": "prompt <|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n"
            "<|im_start|>assistant\n",
        },
    ),
)
def test_a_template_that_reads_parts_loses_nothing(case: dict[str, Any]) -> None:
    tokenizer = nano(chat_template=READS_PARTS)
    if "check" in case:
        configured = SimpleNamespace(eos_token_id=GenerationConfig.from_pretrained(NANO).eos_token_id)
        found = end_ids(configured, tokenizer)
        assert set(case["expected"]) <= set(found)
        assert not set(case["got"]) - set(case["expected"]) & set(found)
        return
    (prompt,) = make_prompts([Row(1, case["row"])], tokenizer, 512, "training", VOCABULARY)
    assert tokenizer.decode(prompt.tokens) == case["expected"].removeprefix("prompt ")


@pytest.mark.parametrize(
    "case",
    cases_of(
        "model-token-without-row",
        {"row": {"messages": [{"role": "system", "content": "<tool>"}, {"role": "user", "content": "Go."}]}},
    ),
)
def test_a_token_without_a_row_is_named_with_its_line(case: dict[str, Any]) -> None:
    tokenizer = nano()
    tokenizer.add_tokens("<tool>")
    with pytest.raises(
        PromptInvalid, match=r"no embedding row for the token '<tool>' \(1280; .* row on line 4"
    ):
        make_prompts([Row(4, case["row"])], tokenizer, 512, "training", VOCABULARY)


@pytest.mark.parametrize("case", cases_of("model-named-templates", {"named": True}))
def test_a_model_with_a_template_for_tools_shows_them(case: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "nano"
    shutil.copytree(NANO, folder)
    (folder / "additional_chat_templates").mkdir()
    shown = "{% for t in tools %}{{ t['function']['name'] }} {% endfor %}" + READS_PARTS
    (folder / "additional_chat_templates/tool_use.jinja").write_text(shown)
    found = inspect(str(folder))
    assert (found["fault"], found["cannot_show"]) == (None, ["thoughts", "tool_calls"])
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    row = {"messages": [{"role": "user", "content": "Hi."}]}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [Row(1, row), Row(2, {**row, "tools": tools})]
    texts = [tokenizer.decode(each.tokens) for each in make_prompts(rows, tokenizer, 512, "training")]
    assert texts[1] == f"look_up {texts[0]}"
    assert case

"""What the templates of published models cannot show, found out by marks: the measured table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.embedded.first_run import BUILT_IN_CANNOT_SHOW, built_in_model
from methods.template_gaps import GAPS, in_words
from tests.chat_templates import TEMPLATES, tokenizer_of
from tests.tiny_model import byte_tokenizer
from workers.inspect.model import inspect
from workers.training.rendering.gaps import cannot_show

NO_TOOLS = ["thoughts", "tools", "tool_calls"]
DROPS_THOUGHTS = ["earlier_thoughts"]
PLAIN = ["thoughts"]
ONE_CALL = ["thoughts", "several_tool_calls", "text_beside_tool_calls"]
MEASURED = {
    "cohere": NO_TOOLS,
    "cohere2": NO_TOOLS,
    "deepseek_r1_distill": NO_TOOLS,
    "deepseekv3": ["thoughts", "tools"],
    "diffusion_gemma": DROPS_THOUGHTS,
    "gemma": ["system_messages", *NO_TOOLS],
    "gemma3": NO_TOOLS,
    "gemma4": PLAIN,
    "gemma4_v2": PLAIN,
    "gemma4_v3": PLAIN,
    "gemma4_v4": PLAIN,
    "gemma4_v5": DROPS_THOUGHTS,
    "glm4moe": DROPS_THOUGHTS,
    "gptoss": ["earlier_thoughts", "several_tool_calls"],
    "idefics3": NO_TOOLS,
    "lfm2": ["thoughts", "tool_calls"],
    "lfm2_2_5": DROPS_THOUGHTS,
    "lfm2_2_5_v2": DROPS_THOUGHTS,
    "lfm2_2_5_vl": DROPS_THOUGHTS,
    "lfm2_v2": PLAIN,
    "llama3": NO_TOOLS,
    "llama3_1": ONE_CALL,
    "llama3_2": ONE_CALL,
    "llava_next": NO_TOOLS,
    "muse_glimmer": ["text_beside_tool_calls"],
    "nemotron_3_5_lightning": DROPS_THOUGHTS,
    "nemotron_3_nano": DROPS_THOUGHTS,
    "nemotron_3_super": DROPS_THOUGHTS,
    "nemotron_3_ultra": DROPS_THOUGHTS,
    "phi3": NO_TOOLS,
    "phi3_5": NO_TOOLS,
    "qwen2_5": PLAIN,
    "qwen2_5_vl": NO_TOOLS,
    "qwen3": DROPS_THOUGHTS,
    "qwen3_5_nothink": DROPS_THOUGHTS,
    "qwen3_5_think": DROPS_THOUGHTS,
    "qwen3_6": DROPS_THOUGHTS,
    "qwen3_8": [],
    "qwen3_instruct_2507": PLAIN,
    "qwen3_vl": PLAIN,
    "smolvlm": NO_TOOLS,
}


def test_every_template_is_measured() -> None:
    assert set(TEMPLATES) == set(MEASURED)
    assert {gap for gaps in MEASURED.values() for gap in gaps} <= set(GAPS)


@pytest.mark.parametrize("name", MEASURED)
def test_what_a_template_cannot_show_is_found(name: str) -> None:
    assert cannot_show(tokenizer_of(name)) == MEASURED[name]


def test_the_page_on_models_has_the_table() -> None:
    page = Path(__file__).parents[4] / "docs" / "models.md"
    told = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.+) \|$", page.read_text("utf-8"), re.MULTILINE)
    by_name = {name: words for names, words in told for name in re.findall(r"\w+", names)}
    assert {name: in_words(gaps) or "nothing" for name, gaps in MEASURED.items()}.items() <= by_name.items()


def test_a_template_that_drops_answers_and_results_is_found_out() -> None:
    calls = "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}"
    said = "{% if m.role in ['user', 'system'] or loop.last and m.role != 'tool' %}{{ m.content }}{% endif %}"
    template = "{% for m in messages %}" + said + calls + "{% endfor %}"
    assert cannot_show(byte_tokenizer(template)) == ["answers", "thoughts", "tools", "tool_results"]


@pytest.mark.parametrize(("name", "gaps"), BUILT_IN_CANNOT_SHOW.items())
def test_a_built_in_models_gaps_are_those_that_it_is_registered_with(
    name: str, gaps: tuple[str, ...]
) -> None:
    found = inspect(str(built_in_model(name)))
    assert (found["fault"], found["cannot_show"]) == (None, list(gaps))

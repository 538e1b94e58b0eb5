"""The Modelfile: the chat template in Ollama's language, or that there is none; ends and plain sampling."""

from __future__ import annotations

import pytest

from tests.tiny_model import byte_tokenizer
from workers.exports.gguf.modelfile import in_go, talk_of, text_for
from workers.exports.gguf.vocabulary import vocabulary_of

CHATML = (
    "{% for m in messages %}<begin>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<begin>assistant\n{% endif %}"
)
OWN_SYSTEM = "{% if messages[0]['role'] != 'system' %}<begin>system\nBe kind.<end>\n{% endif %}" + CHATML
WITH_BOS = "{{ bos_token }}" + CHATML.replace("<begin>", "#")
KEPT_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}<end>{% endif %}{% endfor %}"
)
COUNTS = "{{ messages | length }}" + CHATML
GO = (
    '{{ range .Messages }}{{ if eq .Role "system" }}<begin>system\n{{ .Content }}<end>\n'
    '{{ else if eq .Role "user" }}<begin>user\n{{ .Content }}<end>\n'
    '{{ else if eq .Role "assistant" }}<begin>assistant\n{{ .Content }}<end>\n'
    "{{ end }}{{ end }}<begin>assistant\n"
)


def modelfile(template: str, fault: str | None = None) -> str:
    tokenizer = byte_tokenizer(template)
    vocabulary = vocabulary_of(tokenizer, len(tokenizer), [tokenizer.eos_token_id, tokenizer.pad_token_id])
    return text_for("model-f32.gguf", tokenizer, vocabulary, fault)


def test_a_template_of_turns_is_put_into_gos_language() -> None:
    talk = talk_of(byte_tokenizer(CHATML))
    assert talk is not None
    assert in_go(talk) == GO
    assert f'TEMPLATE """{GO}"""\nPARAMETER' in modelfile(CHATML)


def test_a_system_message_of_the_templates_own_is_named() -> None:
    assert f'TEMPLATE """{GO}"""\nSYSTEM """Be kind."""\n' in modelfile(OWN_SYSTEM)


def test_what_begins_every_chat_stays() -> None:
    talk = talk_of(byte_tokenizer(WITH_BOS))
    assert talk is not None
    assert talk.begin == "<begin>"
    assert in_go(talk).startswith("<begin>{{ range .Messages }}")


@pytest.mark.parametrize("template", [KEPT_SYSTEM, COUNTS, "{{ raise_exception('no') }}"])
def test_another_template_is_left_out_and_said_so(template: str) -> None:
    text = modelfile(template)
    assert "TEMPLATE" not in text
    assert "could not be put into Ollama's language" in text


def test_it_samples_as_training_did_and_stops_at_every_end() -> None:
    text = modelfile(CHATML, "It uses DoRA.")
    for line in (
        "temperature 1",
        "top_k 0",
        "top_p 1",
        "min_p 0",
        "repeat_penalty 1",
        'stop "<end>"',
        'stop "<pad>"',
    ):
        assert f"PARAMETER {line}\n" in text
    assert "# There is no adapter.gguf: It uses DoRA. The model's file holds what it has learnt.\n" in text
    assert "FROM ./model-f32.gguf\n" in text

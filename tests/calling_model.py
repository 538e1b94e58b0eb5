"""A tiny model that was taught, in seconds, to call `look_up` and to answer with what it is told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests.tiny_model import byte_tokenizer, make_tiny_model

TEMPLATE = """{% if tools %}<|im_start|>tools
{% for t in tools %}{{ t.function.name }}
{% endfor %}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
MARKS = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
LETTERS = "abcdefghij"
AGAIN = "?"
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Tells the number of a letter.",
        "parameters": {
            "type": "object",
            "properties": {"key": {"type": "string"}},
            "required": ["key"],
        },
    },
}


def row_of(letter: str) -> dict[str, Any]:
    """A row as Azure's agentic jobs have them: the answer is what the tool says."""
    return {
        "messages": [{"role": "user", "content": f"Number of {letter}?"}],
        "tools": [TOOL],
        "letter": letter,
        "reference_answer": number_of(letter),
    }


def number_of(letter: str) -> str:
    return str(3 * LETTERS.index(letter) % 10)


def calling_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(TEMPLATE)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS, "eos_token": "<|im_end|>"})
    return tokenizer


def make_calling_model(
    folder: Path, steps: int = 300, most_calls: int = 1, *, hidden: int = 64, layers: int = 2
) -> Path:
    """Writes a Llama, by default of about 150,000 parameters, that calls the tool for most rows.

    It calls again where it is told `AGAIN`, as it was taught up to `most_calls` calls.
    """
    make_tiny_model(folder, hidden=hidden, layers=layers, context=1024, tokenizer=calling_tokenizer())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = random.Random(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20, 2 * (1 - step / steps))
        ids, labels = _batch(tokenizer, [_talk(generator, most_calls) for _ in range(8)])
        loss = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def _talk(generator: random.Random, most_calls: int) -> list[str]:
    """Pieces of a conversation, what the model writes at odd places."""
    letter, number = generator.choice(LETTERS), str(generator.randrange(10))
    call = f'<tool_call>\n{{"name": "look_up", "arguments": {{"key": "{letter}"}}}}\n</tool_call><|im_end|>'
    start = f"<|im_start|>tools\nlook_up\n<|im_end|>\n<|im_start|>user\nNumber of {letter}?<|im_end|>\n"
    told = [AGAIN] * (generator.randint(1, most_calls) - 1) + [number]
    pieces = [start + "<|im_start|>assistant\n"]
    for text in told:
        pieces += [call, f"\n<|im_start|>tool\n{text}<|im_end|>\n<|im_start|>assistant\n"]
    return [*pieces, f"{number}<|im_end|>"]


def _batch(tokenizer: Any, talks: list[list[str]]) -> tuple[torch.Tensor, torch.Tensor]:
    rows: list[tuple[list[int], list[int]]] = []
    for pieces in talks:
        ids: list[int] = []
        labels: list[int] = []
        for place, piece in enumerate(pieces):
            found = tokenizer(piece, add_special_tokens=False)["input_ids"]
            ids += found
            labels += found if place % 2 else [-100] * len(found)
        rows.append((ids, labels))
    width = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    return (
        torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows]),
        torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows]),
    )

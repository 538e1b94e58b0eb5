"""The check of a tokenizer, with a program in llama.cpp's place that answers what each test says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import byte_tokenizer
from workers.exports.gguf import GgufRefused
from workers.exports.gguf.texts import NUMBER, texts_for
from workers.exports.gguf.tokenizer_check import RULES, rule_for
from workers.exports.gguf.vocabulary import vocabulary_of

SIDE = """#!{python}
import json, sys
asked = json.loads(sys.stdin.readline())
for rule in asked["rules"]:
    {body}
    print(json.dumps(found), flush=True)
    if found.get("odd") == []:
        break
"""


def checked(folder: Path, body: str) -> str | None:
    tokenizer = byte_tokenizer()
    side = folder / "python"
    side.write_text(SIDE.format(python=sys.executable, body=body))
    side.chmod(0o755)
    vocabulary = vocabulary_of(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    return rule_for(vocabulary, tokenizer, side, folder)


def test_no_rule_that_reads_all_alike_is_a_refusal_with_the_nearest_and_an_example(tmp_path: Path) -> None:
    odd = "found = {'rule': rule, 'odd': [4, 7] if rule == 'smollm' else [4, 7, 9], 'example': [40, 41]}"
    with pytest.raises(
        GgufRefused, match=r"rules, smollm, reads 2 of 1000 texts otherwise, such as "
    ) as refused:
        checked(tmp_path, odd)
    assert texts_for(byte_tokenizer())[4][:20] in str(refused.value)


def test_a_rule_that_crashes_llama_cpp_is_passed(tmp_path: Path) -> None:
    crash = f"if rule == {RULES[0]!r}: sys.exit(9)\n    found = {{'rule': rule, 'odd': [1], 'example': []}}"
    with pytest.raises(GgufRefused, match=rf"rules, {RULES[1]}, reads 1 of 1000"):
        checked(tmp_path, crash)


def test_a_tokenizer_that_no_build_loads_is_refused_with_the_fault(tmp_path: Path) -> None:
    with pytest.raises(GgufRefused, match="cannot load its tokenizer: too odd"):
        checked(tmp_path, "found = {'rule': rule, 'fault': 'too odd'}")


def test_a_lost_end_token_is_named(tmp_path: Path) -> None:
    body = (
        "found = {'rule': rule, 'version': '1.2', 'odd': [], 'whole': asked['ids'], 'ends': [], 'back': []}"
    )
    with pytest.raises(GgufRefused, match=r"may end with '<end>', and llama\.cpp \(1\.2\) would go on"):
        checked(tmp_path, body)


def test_another_beginning_is_refused(tmp_path: Path) -> None:
    end = byte_tokenizer().eos_token_id
    body = (
        "found = {'rule': rule, 'version': '1', 'odd': [], 'ends': [END],"
        " 'whole': [[0, *ids] for ids in asked['ids']], 'back': []}"
    ).replace("END", str(end))
    with pytest.raises(GgufRefused, match=r"llama\.cpp reads '' as \[0\], and the tokenizer as \[\]"):
        checked(tmp_path, body)


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    tokenizer: Any = byte_tokenizer()
    vocabulary = vocabulary_of(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    with pytest.raises(GgufRefused, match="does not run: No such file or directory"):
        rule_for(vocabulary, tokenizer, tmp_path / "nowhere", tmp_path)


def test_the_texts_are_a_thousand_and_always_the_same() -> None:
    texts = texts_for(byte_tokenizer())
    assert len(texts) == NUMBER
    assert texts == texts_for(byte_tokenizer())
    assert json.dumps(texts).isascii()
    assert len(set(texts)) > 0.9 * NUMBER

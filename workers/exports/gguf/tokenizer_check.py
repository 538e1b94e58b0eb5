"""Holds a tokenizer to llama.cpp's reading of it, and finds the split rule that they share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from gguf import GGUFWriter

from workers.exports.gguf.refused import GgufRefused
from workers.exports.gguf.texts import texts_for
from workers.exports.gguf.vocabulary import BYTE_LEVEL, Vocabulary
from workers.inspect.gguf_tokenizer import rules_of

PROGRAM = Path(__file__).with_name("llama_side.py")
MOST_SECONDS = 600.0
"""Of one run of llama.cpp. All rules on the built-in model took 93 s on a busy machine."""
SHOWN = 60
"""Characters of a text, and tokens, that a refusal shows. Chosen, not measured."""
RULES = (
    *("llama-bpe", "qwen2", "gpt-2", "smollm", "gpt-4o", "tekken", "qwen35", "deepseek-v3", "dbrx", "falcon"),
    *(
        "stablelm2",
        "deepseek-llm",
        "deepseek-coder",
        "mpt",
        "starcoder",
        "refact",
        "command-r",
        "olmo",
        "jais",
    ),
    *(
        "smaug-bpe",
        "poro-chat",
        "chatglm-bpe",
        "glm4",
        "viking",
        "jais-2",
        "codeshell",
        "bloom",
        "gpt3-finnish",
    ),
    *(
        "exaone",
        "exaone4",
        "exaone-moe",
        "chameleon",
        "minerva-7b",
        "megrez",
        "superbpe",
        "trillion",
        "youtu",
    ),
    *(
        "bailingmoe",
        "seed-coder",
        "hunyuan",
        "hunyuan-dense",
        "kimi-k2",
        "grok-2",
        "afmoe",
        "laguna",
        "tiny_aya",
    ),
    *(
        "minimax-m2",
        "granite-docling",
        "solar-open",
        "mellum2",
        "minicpm5",
        "ufakzeka",
        "spark2_5",
        "joyai-llm",
    ),
    *("granite-embed-multi-97m", "default"),
)
"""Names of split rules that llama.cpp knows (in llama-cpp-python 0.3.36), the most used ones first. A build
that does not know a name says so, and the next is tried."""
INSTALL = (
    "llama-cpp-python is not installed where this worker runs, and without it nobody can say whether"
    " llama.cpp reads the tokenizer rightly. Install it there (`pip install 'cherry-rft[gguf]'`), or name a"
    " Python that has it in CHERRY_LLAMA_PYTHON."
)


class Expected(NamedTuple):
    """Holds what a tokenizer makes of texts.

    Attributes:
        ids: of each text alone.
        whole: with what is put before and behind it.
        back: the texts that the ids are read back as.
    """

    texts: list[str]
    ids: list[list[int]]
    whole: list[list[int]]
    back: list[str]


def python_with_llama(named: str) -> Path:
    """Returns a Python that has llama-cpp-python: the named one, else this one.

    Raises `GgufRefused` where there is none.
    """
    if named:
        return Path(named)
    if find_spec("llama_cpp") is None:
        raise GgufRefused(INSTALL)
    return Path(sys.executable)


def rule_for(vocabulary: Vocabulary, tokenizer: Any, python: Path, scratch: Path) -> str | None:
    """Returns the split rule by which llama.cpp reads a thousand texts as the tokenizer does; None where the
    kind of tokenizer has no rules.

    Raises `GgufRefused` with an example where there is none, or an end token would be lost.
    """
    file = scratch / "vocabulary.gguf"
    _write_alone(vocabulary, file)
    expected = _expected(tokenizer, len(vocabulary.tokens))
    rules = _in_order(tokenizer) if vocabulary.model == BYTE_LEVEL else (None,)
    found = _asked(python, file, expected, rules)
    right = next((each for each in found if each.get("odd") == []), None)
    if right is None:
        raise GgufRefused(_told(found, expected, tokenizer))
    _check_ends(right["ends"], vocabulary, right["version"])
    _check_back(right, expected)
    rule: str | None = right["rule"]
    return rule


def _in_order(tokenizer: Any) -> tuple[str, ...]:
    """Returns the rules to try, those first that the tokenizer's own file has."""
    own = rules_of(json.loads(tokenizer.backend_tokenizer.to_str()))
    return tuple(sorted(RULES, key=lambda rule: rule not in own))


def _write_alone(vocabulary: Vocabulary, file: Path) -> None:
    writer = GGUFWriter(file, "llama")
    vocabulary.add_to(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def _expected(tokenizer: Any, rows: int) -> Expected:
    """Returns what the tokenizer makes of the texts; those with tokens that the model has no row for go."""
    kept = []
    for text in texts_for(tokenizer):
        ids, whole = (tokenizer(text, add_special_tokens=added)["input_ids"] for added in (False, True))
        if max(whole, default=0) < rows:
            kept.append((text, ids, whole, _read_back(tokenizer, ids)))
    texts, ids, whole, back = (list(each) for each in zip(*kept, strict=True))
    return Expected(texts, ids, whole, back)


def _read_back(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _asked(python: Path, file: Path, expected: Expected, rules: Sequence[str | None]) -> list[dict[str, Any]]:
    """Returns what llama.cpp says by each rule, up to the first that is right. A crash counts too."""
    found: list[dict[str, Any]] = []
    while len(found) < len(rules):
        left = rules[len(found) :]
        asked = {"file": str(file), "rules": left, "texts": expected.texts, "ids": expected.ids}
        lines, ended = _run(python, json.dumps(asked))
        found += map(json.loads, lines)
        if found and found[-1].get("odd") == []:
            return found
        if len(lines) < len(left):
            found.append({"rule": left[len(lines)], "fault": ended})
    return found


def _run(python: Path, asked: str) -> tuple[list[str], str]:
    """Returns the lines that llama.cpp's side has written, and how it ended."""
    command = [str(python), str(PROGRAM)]
    try:
        done = subprocess.run(
            command, input=asked + "\n", capture_output=True, text=True, timeout=MOST_SECONDS
        )
    except OSError as problem:
        raise GgufRefused(
            f"{python}, the Python with llama-cpp-python, does not run: {problem.strerror}."
        ) from None
    except subprocess.TimeoutExpired:
        raise GgufRefused(f"llama.cpp did not read the texts within {MOST_SECONDS:g} s.") from None
    errors = done.stderr.strip().splitlines()
    if any("No module named 'llama_cpp'" in line for line in errors):
        raise GgufRefused(f"{python} has no llama-cpp-python. {INSTALL}")
    return done.stdout.splitlines(), errors[-1] if errors else f"llama.cpp ended with {done.returncode}"


def _told(found: Sequence[dict[str, Any]], expected: Expected, tokenizer: Any) -> str:
    """Says which rule comes nearest, and a text that it reads otherwise."""
    tried = [each for each in found if "odd" in each]
    if not tried:
        return f"llama.cpp cannot load its tokenizer: {found[0]['fault']}."
    best = min(tried, key=lambda each: len(each["odd"]))
    at = best["odd"][0]
    ours, theirs = expected.ids[at], best["example"]
    begin = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
    shown = [tokenizer.convert_ids_to_tokens(ids[max(0, begin - 1) : begin + 4]) for ids in (ours, theirs)]
    by = "" if best["rule"] is None else f" The nearest of its split rules, {best['rule']},"
    return (
        f"llama.cpp has no way to split text as this model's tokenizer does, and would read other tokens than"
        f" the model was trained on.{by or ' It'} reads {len(best['odd'])} of {len(expected.texts)} texts"
        f" otherwise, such as {expected.texts[at][:SHOWN]!r}, where it has {shown[1]} for {shown[0]}. Use the"
        " merged form, with transformers or vLLM."
    )


def _check_ends(ends: Sequence[int], vocabulary: Vocabulary, version: str) -> None:
    if lost := sorted(set(vocabulary.ends) - set(ends)):
        named = ", ".join(repr(vocabulary.tokens[token]) for token in lost)
        raise GgufRefused(
            f"An answer of this model may end with {named}, and llama.cpp ({version}) would go on:"
            " a GGUF file names three end tokens, and others are known by their texts alone."
        )


def _check_back(right: dict[str, Any], expected: Expected) -> None:
    """Raises `GgufRefused` where bos or eos are put otherwise, or tokens read back as another text."""
    for text, ours, theirs in zip(expected.texts, expected.whole, right["whole"], strict=True):
        if ours != theirs:
            shown = f"{text[:SHOWN]!r} as {theirs[:SHOWN]}, and the tokenizer as {ours[:SHOWN]}"
            raise GgufRefused(f"llama.cpp reads {shown}.")
    for back, written in zip(expected.back, right["back"], strict=True):
        # transformers drops the space that such tokenizers put before a text
        if back not in (written, written.removeprefix(" ")):
            raise GgufRefused(
                f"llama.cpp writes {written[:SHOWN]!r} where the tokenizer writes {back[:SHOWN]!r}."
            )

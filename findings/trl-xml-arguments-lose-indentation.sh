#!/usr/bin/env bash
# trl 1.16.0's response templates cut white space off text arguments in the families that write calls as XML.
#
# Qwen3.5, 3.6 and 3.8, GLM 4 MoE and Nemotron 3 write a text argument between tags as it is. Read back by parse_response of
# transformers 5.23.0, from what the family's own template has written, it comes without the spaces and newlines at its ends: a
# tool that edits files is given a line without its indentation. The JSON families (Qwen3, Llama 3.1) give it back whole.
#
# Output seen:
#   qwen3: '    return x\n'
#   llama3_1: '    return x\n'
#   qwen3_5_nothink: 'return x'
#   qwen3_6: 'return x'
#   qwen3_8: 'return x'
#   glm4moe: 'return x'
#   nemotron_3_nano: 'return x'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 trl==1.16.0
"$folder/venv/bin/python" - > "$folder/seen" 2> "$folder/errors" <<'EOF' || { tail -20 "$folder/errors"; exit 1; }
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import chat_template_utils as templates


def tokenizer_of(family):
    """Returns a tokenizer of single bytes with a family's chat template and trl's response template for it."""
    letters = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    outer = PreTrainedTokenizerFast(tokenizer_object=inner)
    outer.chat_template = getattr(templates, family + "_chat_template")
    return templates.add_response_schema(outer)


def round_trip(family, arguments, tools):
    """Returns the message that is read back from a call as the family's own template writes it."""
    tokenizer = tokenizer_of(family)
    asked = [{"role": "user", "content": "Go."}]
    call = {"type": "function", "function": {"name": tools[0]["function"]["name"], "arguments": arguments}}
    talk = [*asked, {"role": "assistant", "content": "", "tool_calls": [call]}]
    prompt = tokenizer.apply_chat_template(asked, tools=tools, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(talk, tools=tools, tokenize=False)
    start = len(prompt) if whole.startswith(prompt) else len(
        tokenizer.apply_chat_template(asked, tools=tools, tokenize=False)
    )
    return tokenizer.parse_response(whole[start:], prefix=prompt, tools=tools)


text = {"type": "object", "properties": {"old": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "edit", "description": "Edits.", "parameters": text}}]
for family in ("qwen3", "llama3_1", "qwen3_5_nothink", "qwen3_6", "qwen3_8", "glm4moe", "nemotron_3_nano"):
    (call,) = round_trip(family, {"old": "    return x\n"}, tools)["tool_calls"]
    print(f"{family}: {call['function']['arguments']['old']!r}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# trl 1.16.0's response template of LFM 2.5 reads a comma inside a text argument as the beginning of another argument.
#
# LFM 2.5 writes calls as Python does. Where a text holds a quotation mark of the kind that stands around it, or an equals sign
# behind a comma, the call that parse_response of transformers 5.23.0 gives back has other arguments than the one that the
# family's own template has written, and what is left of the text becomes the answer. Nothing says that text was lost.
#
# Output seen:
#   plain -> {'note': 'plain'}; answer None
#   it's late -> {'note': 'it'}; answer None
#   a, b=(1) -> {'note': "'a", 'b': '(1'}; answer "')]<|tool_call_end|>"
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


text = {"type": "object", "properties": {"note": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "save", "description": "Saves.", "parameters": text}}]
for note in ("plain", "it's late", "a, b=(1)"):
    message = round_trip("lfm2_2_5", {"note": note}, tools)
    (call,) = message["tool_calls"]
    print(f"{note} -> {call['function']['arguments']}; answer {message.get('content')!r}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# trl 1.16.0's response template of gpt-oss knows one spelling of a call's header; calls in the others vanish without a word.
#
# OpenAI's description of the format (cookbook, "OpenAI harmony response format") has the recipient in the header's role part or
# in its channel part, and `<|constrain|>json` before the message. parse_response of transformers 5.23.0 gives a message without
# calls, content or thoughts for those, and raises nothing, so that a run with tools takes a call for an empty answer.
#
# Output seen:
#   recipient first, json: ['look']
#   recipient first, constrain: []
#   channel first, constrain: []
#   channel first, json: []
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


spellings = {
    "recipient first, json": " to=functions.look<|channel|>commentary json<|message|>{}<|call|>",
    "recipient first, constrain": " to=functions.look<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
    "channel first, constrain": "<|channel|>commentary to=functions.look <|constrain|>json<|message|>{}<|call|>",
    "channel first, json": "<|channel|>commentary to=functions.look json<|message|>{}<|call|>",
}
tokenizer = tokenizer_of("gptoss")
for name, text in spellings.items():
    message = tokenizer.parse_response(text, prefix="<|start|>assistant")
    print(f"{name}: {[call['function']['name'] for call in message.get('tool_calls', [])]}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

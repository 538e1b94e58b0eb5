#!/usr/bin/env bash
# transformers 5.23.0's parse_response types an argument by `type` alone: enums and $refs of numbers stay text.
#
# With `tools=` the arguments of families that write calls as XML are cast by the tool's schema. A schema that names its values
# by `enum` or `const`, or points to a definition, as pydantic writes them, tells the type as well, but the argument stays text
# and so breaks the schema that it was cast by. A union casts by the first type that fits: of a number or text, "007" becomes 7.
#
# Output seen:
#   {'type': 'integer'}: 2
#   {'enum': [1, 2]}: '2'
#   {'const': 2}: '2'
#   {'$ref': '#/$defs/level'}: '2'
#   {'allOf': [{'type': 'integer'}]}: '2'
#   {'type': ['integer', 'string']}: 7
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


def read(schema, value):
    tokenizer = tokenizer_of("qwen3_6")
    definitions = {"level": {"type": "integer"}}
    parameters = {"type": "object", "properties": {"level": schema}, "$defs": definitions}
    tools = [{"type": "function", "function": {"name": "set", "description": "Sets.", "parameters": parameters}}]
    call = f"<tool_call>\n<function=set>\n<parameter=level>\n{value}\n</parameter>\n</function>\n</tool_call>"
    message = tokenizer.parse_response(f"Hm.\n</think>\n\n{call}<|im_end|>", prefix="<|im_start|>assistant\n<think>\n", tools=tools)
    return message["tool_calls"][0]["function"]["arguments"]["level"]


for schema in (
    {"type": "integer"}, {"enum": [1, 2]}, {"const": 2}, {"$ref": "#/$defs/level"}, {"allOf": [{"type": "integer"}]}
):
    print(f"{schema}: {read(schema, '2')!r}")
print(f"{ {'type': ['integer', 'string']} }: {read({'type': ['integer', 'string']}, '007')!r}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

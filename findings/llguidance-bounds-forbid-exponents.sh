#!/usr/bin/env bash
# llguidance 1.9.1: a bound on a number takes exponents away.
#
# `{"type": "number"}` lets 1e-9 and -1e3 through. With any bound, `exclusiveMinimum: 0` say, no exponent is possible any
# more: 1e-9 must be written as 0.000000001, and 5e-1 is refused between 0.5 and 1. With minimum and maximum 0, "0" is the
# only text: 0.0 is refused.
#
# Output seen:
#   {} {'1e-9': True, '-1e3': True, '5e-1': True, '0.0': True}
#   {'exclusiveMinimum': 0} {'1e-9': False, '0.000000001': True}
#   {'maximum': -1} {'-1e3': False, '-1000': True}
#   {'minimum': 0.5, 'maximum': 1} {'5e-1': False, '0.5': True, '0.50': True}
#   {'minimum': 0, 'maximum': 0} {'0': True, '0.0': False}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  llguidance==1.9.1
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
import llguidance

tokenizer = llguidance.LLTokenizer("byte")


def is_accepted(schema: dict, text: str) -> bool:
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_json_schema(schema))
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


for bounds, texts in (
    ({}, ("1e-9", "-1e3", "5e-1", "0.0")),
    ({"exclusiveMinimum": 0}, ("1e-9", "0.000000001")),
    ({"maximum": -1}, ("-1e3", "-1000")),
    ({"minimum": 0.5, "maximum": 1}, ("5e-1", "0.5", "0.50")),
    ({"minimum": 0, "maximum": 0}, ("0", "0.0")),
):
    print(bounds, {text: is_accepted({"type": "number", **bounds}, text) for text in texts})
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

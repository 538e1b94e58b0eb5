#!/usr/bin/env bash
# llguidance 1.9.1 refuses the very text of a whole number that a schema writes as 1.0.
#
# `{"const": 1.0}` and `{"enum": [1.0, 2.5]}` accept "1" and refuse "1.0", while 2.5 is accepted as written. A model that was
# taught on answers with "1.0" gets no probability for its own text.
#
# Output seen:
#   {'const': 1.0} {'1.0': False, '1': True}
#   {'enum': [1.0, 2.5]} {'1.0': False, '1': True, '2.5': True}
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


for schema, texts in (({"const": 1.0}, ("1.0", "1")), ({"enum": [1.0, 2.5]}, ("1.0", "1", "2.5"))):
    print(schema, {text: is_accepted(schema, text) for text in texts})
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

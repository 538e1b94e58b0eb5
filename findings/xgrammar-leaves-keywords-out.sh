#!/usr/bin/env bash
# xgrammar 0.2.9 leaves keywords out without a word, where they stand beside others that it knows.
#
# `multipleOf` of a number, `oneOf` and `allOf` are told of in a warning. Nothing is told of `anyOf` beside a type, `not`, `if`,
# `contains`, `uniqueItems` and `dependentRequired`: what each of them forbids is let through.
#
# Output seen:
#   {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 2}]} lets through: 5
#   {"not": {"type": "integer"}} lets through: 1
#   {"if": {"type": "integer"}, "then": {"minimum": 3}} lets through: 1
#   {"type": "array", "items": {"type": "integer"}, "contains": {"const": 1}} lets through: [2]
#   {"type": "array", "items": {"type": "integer"}, "uniqueItems": true} lets through: [1, 1]
#   {"type": "object", "properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}} lets through: {"a": 1}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.23.0 triton==3.9.0 apache-tvm-ffi==0.1.15.post2 xgrammar==0.2.9
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
import json

import xgrammar
from xgrammar.testing import _is_grammar_accept_string

for schema, text in (
    ({"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 2}]}, "5"),
    ({"not": {"type": "integer"}}, "1"),
    ({"if": {"type": "integer"}, "then": {"minimum": 3}}, "1"),
    ({"type": "array", "items": {"type": "integer"}, "contains": {"const": 1}}, "[2]"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "[1, 1]"),
    ({"type": "object", "properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}}, '{"a": 1}'),
):
    grammar = xgrammar.Grammar.from_json_schema(json.dumps(schema))
    print(json.dumps(schema), "lets through:", text if _is_grammar_accept_string(grammar, text) else None)
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

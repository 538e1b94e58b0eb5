#!/usr/bin/env bash
# xgrammar 0.2.9: a required property that `properties` does not name makes another one required.
#
# JSON Schema requires b here, and a may be left out. The grammar requires a instead: {"a": 1} is let through, which is
# invalid, {"b": 1} is not. With `strict_mode=False`, b may follow a.
#
# Output seen:
#   strict_mode=True {'{"a": 1}': True, '{"b": 1}': False, '{"a": 1, "b": 1}': False}
#   strict_mode=False {'{"a": 1}': True, '{"b": 1}': False, '{"a": 1, "b": 1}': True}
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

schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}
for strict in (True, False):
    grammar = xgrammar.Grammar.from_json_schema(json.dumps(schema), strict_mode=strict)
    texts = ('{"a": 1}', '{"b": 1}', '{"a": 1, "b": 1}')
    print(f"strict_mode={strict}", {text: _is_grammar_accept_string(grammar, text) for text in texts})
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

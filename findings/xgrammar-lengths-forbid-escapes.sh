#!/usr/bin/env bash
# xgrammar 0.2.9: a length on a string takes its escapes away.
#
# `{"type": "string"}` lets line breaks, quotes and backslashes through as JSON escapes them. With `minLength` or `maxLength`,
# however wide, none of them can be written any more: an answer of two lines, or one that quotes, cannot be given.
#
# Output seen:
#   {} {'two words': True, 'two\nlines': True, 'a "quote"': True, 'C:\\': True, 'é': True}
#   {'maxLength': 1000} {'two words': True, 'two\nlines': False, 'a "quote"': False, 'C:\\': False, 'é': True}
#   {'minLength': 1} {'two words': True, 'two\nlines': False, 'a "quote"': False, 'C:\\': False, 'é': True}
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

for schema in ({}, {"maxLength": 1000}, {"minLength": 1}):
    grammar = xgrammar.Grammar.from_json_schema(json.dumps({"type": "string", **schema}))
    texts = ("two words", "two\nlines", 'a "quote"', "C:\\", "é")
    print(schema, {text: _is_grammar_accept_string(grammar, json.dumps(text, ensure_ascii=False)) for text in texts})
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# outlines-core 0.2.14 anchors `pattern` on both sides; JSON Schema searches. And an alternation breaks the string.
#
# `{"pattern": "b"}` is valid for every string that holds a b (JSON Schema 2020-12, validation, 6.3.3). The regular expression
# lets "b" alone through. `^a|b$` is put between the quotes without a group: what it lets through, an opened and a closed
# half of a string, is no JSON, and no valid string is let through.
#
# Output seen:
#   b {'"abc"': False, '"b"': True}
#   ^a|b$ {'"a"': False, '"xb"': False, '"a': True, 'b"': True}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  outlines-core==0.2.14
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
import json
import re

from outlines_core import json_schema

for pattern, texts in (("b", ('"abc"', '"b"')), ("^a|b$", ('"a"', '"xb"', '"a', 'b"'))):
    regex = json_schema.build_regex_from_schema(json.dumps({"type": "string", "pattern": pattern}))
    print(pattern, {text: re.fullmatch(regex, text) is not None for text in texts})
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

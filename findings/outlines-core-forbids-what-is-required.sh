#!/usr/bin/env bash
# outlines-core 0.2.14 turns a required property that `properties` does not name into a forbidden one.
#
# JSON Schema requires b here and leaves its value open. The regular expression knows a alone: the object without b, which is
# invalid, is the only kind it lets through, and no object with b is.
#
# Output seen:
#   {"a":1} True
#   {"a":1,"b":2} False
#   {"b":2} False
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

schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}
regex = json_schema.build_regex_from_schema(json.dumps(schema))
for text in ('{"a":1}', '{"a":1,"b":2}', '{"b":2}'):
    print(text, re.fullmatch(regex, text) is not None)
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

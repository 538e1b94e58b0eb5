#!/usr/bin/env bash
# outlines-core 0.2.14 drops what a regular expression cannot say, without a word.
#
# `build_regex_from_schema` refuses some keywords (`not`, `if`, boolean schemas), but leaves others out silently: bounds of
# integers and numbers, `multipleOf`, `uniqueItems`, `contains`, `propertyNames`, and `oneOf` becomes `anyOf`. An answer that
# the constraint let through then fails the schema.
#
# Output seen:
#   {"type": "integer", "minimum": 1, "maximum": 10} lets through: 11
#   {"type": "number", "exclusiveMinimum": 0} lets through: -5.5
#   {"type": "integer", "multipleOf": 3} lets through: 10
#   {"type": "array", "items": {"type": "integer"}, "uniqueItems": true} lets through: [1,1]
#   {"type": "array", "items": {"type": "integer"}, "contains": {"const": 1}} lets through: [2]
#   {"oneOf": [{"type": "integer"}, {"type": "number"}]} lets through: 1
#   {"type": "object", "propertyNames": {"pattern": "^a"}} lets through: {"b":1}
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

for schema, text in (
    ({"type": "integer", "minimum": 1, "maximum": 10}, "11"),
    ({"type": "number", "exclusiveMinimum": 0}, "-5.5"),
    ({"type": "integer", "multipleOf": 3}, "10"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "[1,1]"),
    ({"type": "array", "items": {"type": "integer"}, "contains": {"const": 1}}, "[2]"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "1"),
    ({"type": "object", "propertyNames": {"pattern": "^a"}}, '{"b":1}'),
):
    found = re.fullmatch(json_schema.build_regex_from_schema(json.dumps(schema)), text)
    print(json.dumps(schema), "lets through:", text if found else None)
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# llguidance 1.9.1 constrains `"format": "date"` to days that a month can have, but knows no leap years.
#
# 30 February is refused; 29 February is accepted in every year, 2023 and 1900 too, in dates and in date-times. What the
# grammar has let through still fails a validator that checks formats.
#
# Output seen:
#   2024-02-29 True
#   2024-02-30 False
#   2023-02-29 True
#   1900-02-29 True
#   2023-02-29T10:00:00Z True
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


for day in ("2024-02-29", "2024-02-30", "2023-02-29", "1900-02-29"):
    print(day, is_accepted({"type": "string", "format": "date"}, f'"{day}"'))
moment = "2023-02-29T10:00:00Z"
print(moment, is_accepted({"type": "string", "format": "date-time"}, f'"{moment}"'))
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

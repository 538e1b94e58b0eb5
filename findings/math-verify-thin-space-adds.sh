#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0) reads digits grouped by LaTeX's thin space as a mixed number: it adds.
#
# `$1\,234$` is how LaTeX and SI write 1234. `parse` gives 235 (1 + 234), so the right answer is refused and 235 is
# accepted; `$12\,500$` is 512. Groups written with `{,}` are read as one number.
#
# Output seen:
#   1\,234 -> 235
#   12\,500 -> 512
#   1{,}234 -> 1234
#   gold 1\,234, answer 1234: False, answer 235: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

for text in (r"1\,234", r"12\,500", "1{,}234"):
    print(text, "->", parse(f"${text}$")[0])
gold = parse(r"$1\,234$")
print(r"gold 1\,234, answer 1234:", str(verify(gold, parse("$1234$"))) + ", answer 235:", verify(gold, parse("$235$")))
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

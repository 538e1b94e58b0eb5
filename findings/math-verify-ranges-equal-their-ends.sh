#!/usr/bin/env bash
# math-verify 0.9.0 accepts the two ends of an open range for the range: 1 < x < 2 equals the list 1, 2.
#
# An inequality is compared as an open interval, and an open interval of two ends as a pair of numbers, since (1, 2) may be
# either. So an answer that names two solutions, even of two unknowns, is right where a range was asked for. The closed range
# is told from its ends.
#
# Output seen:
#   gold 1<x<2, answer \{1,2\}: True
#   gold 1<x<2, answer x=1, y=2: True
#   gold 1\le x\le 2, answer \{1,2\}: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

for gold, answer in (("1<x<2", r"\{1,2\}"), ("1<x<2", "x=1, y=2"), (r"1\le x\le 2", r"\{1,2\}")):
    print(f"gold {gold}, answer {answer}: {verify(parse(f'${gold}$'), parse(f'${answer}$'))}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# math-verify 0.9.0 takes an equation that is not solved for its right side: 2x = 6 is 6.
#
# Where one side of a comparison is a number and the other an equation, the equation's right side is compared, whatever its
# left side is. For a gold answer of 6 the answers 2x = 6 and x + 2 = 6 are right, which say that x is 3 and 4.
#
# Output seen:
#   gold 6, answer x=6: True
#   gold 6, answer 2x=6: True
#   gold 6, answer x+2=6: True
#   gold 3, answer 2x=6: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

for gold, answer in (("6", "x=6"), ("6", "2x=6"), ("6", "x+2=6"), ("3", "2x=6")):
    print(f"gold {gold}, answer {answer}: {verify(parse(f'${gold}$'), parse(f'${answer}$'))}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

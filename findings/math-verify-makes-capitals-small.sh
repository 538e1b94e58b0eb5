#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0) makes every letter small, so that m and M, or R and r, are one symbol.
#
# Formulas that need both, as the reduced mass or the area of a ring, lose one of their variables: a difference of two radii
# is 0, and a quotient of a voltage and a speed is 1. Wrong answers are accepted. Function names keep their case. The setting
# behind it, `lowercase_symbols`, cannot be reached through `parse`.
#
# Output seen:
#   R-r -> 0; gold R-r, answer 0: True
#   \frac{mM}{m+M} -> m/2; gold \frac{mM}{m+M}, answer \frac{m}{2}: True
#   \frac{\Omega}{\omega} -> 1; gold \frac{\Omega}{\omega}, answer 1: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify
from sympy import simplify

for gold, answer in (("R-r", "0"), (r"\frac{mM}{m+M}", r"\frac{m}{2}"), (r"\frac{\Omega}{\omega}", "1")):
    read = parse(f"${gold}$")
    is_right = verify(read, parse(f"${answer}$"))
    print(f"{gold} -> {simplify(read[0])}; gold {gold}, answer {answer}: {is_right}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0) takes primes for quotation marks and drops them, so that y'' is y.
#
# Differential equations and rules of derivation become sums of the function itself: y'' + 4y equals 5y, and u'v + uv' equals
# 2uv. A derivative written dy/dx fares otherwise: it is computed, of a y that does not depend on x, and is 0.
#
# Output seen:
#   gold y''+4y, answer 5y: True
#   gold u'v+uv', answer 2uv: True
#   gold f'(x), answer f(x): True
#   gold \frac{dy}{dx}, answer 0: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

for gold, answer in (("y''+4y", "5y"), ("u'v+uv'", "2uv"), ("f'(x)", "f(x)"), (r"\frac{dy}{dx}", "0")):
    print(f"gold {gold}, answer {answer}: {verify(parse(f'${gold}$'), parse(f'${answer}$'))}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

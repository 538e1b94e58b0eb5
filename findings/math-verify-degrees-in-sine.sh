#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0) drops the degree sign, so a sine of degrees is one of radians.
#
# `$\sin(30^\circ)$` is one half. `parse` gives sin(30), which is -0.988: the right answer is refused, and the sine of 30
# radians is accepted. An angle of 90 degrees differs from pi/2 for the same reason, and equals 90.
#
# Output seen:
#   \sin(30^\circ) -> sin(30)
#   gold \sin(30^\circ), answer 1/2: False
#   gold \sin(30^\circ), answer \sin(30): True
#   gold 90^\circ, answer \pi/2: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

gold = parse(r"$\sin(30^\circ)$")
print(r"\sin(30^\circ) ->", gold[0])
print(r"gold \sin(30^\circ), answer 1/2:", verify(gold, parse(r"$\frac{1}{2}$")))
print(r"gold \sin(30^\circ), answer \sin(30):", verify(gold, parse(r"$\sin(30)$")))
print(r"gold 90^\circ, answer \pi/2:", verify(parse(r"$90^\circ$"), parse(r"$\frac{\pi}{2}$")))
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0) tells tiny numbers apart or not by how they are written.
#
# Written as decimals, 0.0000001 and 0.0000002 are equal (floats are rounded to six places),
# though 0.0000001 and 0 are not.
# Written as powers of ten, 10^{-7} and 2\cdot10^{-7} differ. And 1.0000001 differs from 1, which lies as close.
#
# Output seen:
#   0.0000001 = 0.0000002: True
#   0.0000001 = 0: False
#   10^{-7} = 2\cdot10^{-7}: False
#   1.0000001 = 1: False
#   1.0000001 = 1.0000002: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

for gold, answer in (
    ("0.0000001", "0.0000002"),
    ("0.0000001", "0"),
    ("10^{-7}", r"2\cdot10^{-7}"),
    ("1.0000001", "1"),
    ("1.0000001", "1.0000002"),
):
    print(f"{gold} = {answer}:", verify(parse(f"${gold}$"), parse(f"${answer}$")))
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0) drops an exponent that is the letter T, so that a matrix equals its transpose.
#
# Every other letter stays an exponent. What is dropped need not belong to a matrix: two to the power of T is 2. Written with
# \top the exponent stays, but then nothing is read at all, and the same transpose in the two notations differs.
#
# Output seen:
#   A^T -> a
#   A^n -> a**n
#   2^{T} -> 2
#   gold A^T+A, answer 2A: True
#   gold A^T, answer A^{\top}: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

for text in ("A^T", "A^n", "2^{T}"):
    print(f"{text} -> {parse(f'${text}$')[0]}")
for gold, answer in (("A^T+A", "2A"), ("A^T", r"A^{\top}")):
    print(f"gold {gold}, answer {answer}: {verify(parse(f'${gold}$'), parse(f'${answer}$'))}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# math-verify 0.9.0 joins bare boxes that follow each other into one set.
#
# An answer that thinks in one box and answers in another (`\boxed{3} ... \boxed{4}`) is read as {3, 4}: it matches neither
# 4, the answer, nor 3. So does a box inside `<think>`, unless a question mark follows it. Where each box stands in dollars,
# the last one alone is read.
#
# Output seen:
#   \boxed{4} -> 4 True
#   First \boxed{3}; no, it is \boxed{4} -> {3, 4} False
#   <think>\boxed{3}</think> \boxed{4} -> {3, 4} False
#   <think>\boxed{3}?</think> \boxed{4} -> 4 True
#   First $\boxed{3}$; no, it is $\boxed{4}$ -> 4 True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

gold = parse("$4$")
for answer in (
    r"\boxed{4}",
    r"First \boxed{3}; no, it is \boxed{4}",
    r"<think>\boxed{3}</think> \boxed{4}",
    r"<think>\boxed{3}?</think> \boxed{4}",
    r"First $\boxed{3}$; no, it is $\boxed{4}$",
):
    read = parse(answer)
    print(answer, "->", read[0], verify(gold, read))
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

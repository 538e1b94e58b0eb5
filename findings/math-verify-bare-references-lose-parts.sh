#!/usr/bin/env bash
# math-verify 0.9.0 reads only a part of a reference that has no dollars around it.
#
# Answers of public sets are often bare, and TRL's `accuracy_reward` (1.16.0) hands its `solution` column on as it is. Read bare,
# 1.5e6 is 1.5, a list of three is the decimal 1.2, a mixed number is its fraction, a complex number its real part, and
# nothing at all is read of a tuple or of x^2+1. With dollars all but the exponent are read whole.
#
# Output seen:
#   1.5e6: bare 1.50000000000000, in dollars 1.5*E*6
#   1,2,3: bare 1.20000000000000, in dollars {1, 2, 3}
#   1\frac{1}{2}: bare 1/2, in dollars 3/2
#   -3+4i: bare -3, in dollars 4*i - 3
#   2\sqrt{3}: bare 2, in dollars 2*sqrt(3)
#   5!: bare 5, in dollars factorial(5)
#   (1,2): bare nothing, in dollars Interval.open(1, 2)
#   x^2+1: bare nothing, in dollars x**2 + 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse


def read(text: str) -> str:
    found = parse(text)
    return str(found[0]) if found else "nothing"


for text in ("1.5e6", "1,2,3", r"1\frac{1}{2}", "-3+4i", r"2\sqrt{3}", "5!", "(1,2)", "x^2+1"):
    print(f"{text}: bare {read(text)}, in dollars {read(f'${text}$')}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0) drops the overlined digits of a repeating decimal.
#
# `$0.\overline{3}$` is a third. `parse` gives 0, so a third is refused against it and 0 is accepted. `$0.8\overline{3}$`
# (5/6) becomes a product of 0.8 and a symbol.
#
# Output seen:
#   0.\overline{3} -> 0
#   0.8\overline{3} -> 0.8*bar{3}
#   gold 1/3, answer 0.\overline{3}: False
#   gold 0.\overline{3}, answer 0: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
from math_verify import parse, verify

for text in (r"0.\overline{3}", r"0.8\overline{3}"):
    print(text, "->", parse(f"${text}$")[0])
repeating = parse(r"$0.\overline{3}$")
print(r"gold 1/3, answer 0.\overline{3}:", verify(parse(r"$\frac{1}{3}$"), repeating))
print(r"gold 0.\overline{3}, answer 0:", verify(repeating, parse("$0$")))
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

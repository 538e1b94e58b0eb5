#!/usr/bin/env bash
# reasoning-gym 0.1.25: the scorer that most tasks inherit finds an answer inside another number, and pays for it.
#
# `ProceduralDataset.score_answer` gives len(expected) / len(answer) to any text that holds the expected one. For a greatest
# common divisor of 1 the wrong answers 10, 21 and 100 earn a half or a third, while a right answer that ends with a full stop or
# a line break earns no more.
#
# Output seen:
#   expected: 1
#   '1': 1.00
#   '10': 0.50
#   '21': 0.50
#   '100': 0.33
#   '1.': 0.50
#   '1\n': 0.50
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  reasoning-gym==0.1.25
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
import reasoning_gym

data = reasoning_gym.create_dataset("gcd", size=60, seed=7)
row = next(row for row in data if row["answer"] == "1")
print("expected:", row["answer"])
for text in ("1", "10", "21", "100", "1.", "1\n"):
    print(f"{text!r}: {data.score_answer(text, row):.2f}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

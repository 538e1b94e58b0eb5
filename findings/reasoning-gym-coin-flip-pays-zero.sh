#!/usr/bin/env bash
# reasoning-gym 0.1.25: `coin_flip` gives full marks to the answer "0".
#
# Where a number is not the expected one, `score_answer` pays for a common prefix of the digits, divided by the length of the
# shorter text. Every probability below 1 begins with "0", which is its prefix whole: 1.0. "0.1" earns as much against
# 0.109375, and the next try, "0.11", less.
#
# Output seen:
#   expected: 0.109375
#   0.109375: 1.00
#   0: 1.00
#   0.1: 1.00
#   0.11: 0.75
#   0.5: 0.67
#   mean score of '0' over 40 rows: 0.95
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  reasoning-gym==0.1.25
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
import reasoning_gym

data = reasoning_gym.create_dataset("coin_flip", size=40, seed=7)
row = data[0]
print("expected:", row["answer"])
for text in ("0.109375", "0", "0.1", "0.11", "0.5"):
    print(f"{text}: {data.score_answer(text, row):.2f}")
print("mean score of '0' over 40 rows:", sum(data.score_answer("0", row) for row in data) / 40)
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

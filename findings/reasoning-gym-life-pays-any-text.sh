#!/usr/bin/env bash
# reasoning-gym 0.1.25: `game_of_life_halting` gives full marks to any text.
#
# The answers are the texts 'True' and 'False', and `score_answer` compares `bool()` of both: every text that is not empty is
# true. A policy has nothing to learn there, and its reward is 1.0 from the first step.
#
# Output seen:
#   answers: {'True': 20, 'False': 20}
#   mean score of 'True': 1.0
#   mean score of 'False': 1.0
#   mean score of 'banana': 1.0
#   mean score of '': 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  reasoning-gym==0.1.25
"$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
import reasoning_gym

data = reasoning_gym.create_dataset("game_of_life_halting", size=40, seed=7)
print("answers:", {answer: sum(row["answer"] == answer for row in data) for answer in ("True", "False")})
for text in ("True", "False", "banana", ""):
    print(f"mean score of {text!r}:", sum(data.score_answer(text, row) for row in data) / 40)
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

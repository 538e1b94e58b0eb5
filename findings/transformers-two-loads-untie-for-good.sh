#!/usr/bin/env bash
# transformers 5.23.0: after two threads have loaded models at the same time, every later load in the process lacks tied weights.
#
# from_pretrained replaces PreTrainedModel.tie_weights while it makes a model, and puts back what it found. The thread that came
# second found the replacement, and puts that back when the first is long done. Nothing is raised: the output layer of a model
# with tied embeddings is then made of random numbers, which missing_keys of the loading info alone tells.
#
# Output seen:
#   loaded alone: missing []
#   loaded after two threads have loaded at once: missing ['lm_head.weight']
#   its output layer is its embeddings: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - "$folder/model" > "$folder/seen" 2> "$folder/errors" <<'EOF' || { tail -20 "$folder/errors"; exit 1; }
import sys
import threading

from transformers import LlamaConfig, LlamaForCausalLM

folder = sys.argv[1]
sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **sizes)).save_pretrained(folder)


def load():
    model, told = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    return model, sorted(told["missing_keys"])


print(f"loaded alone: missing {load()[1]}")
for _ in range(20):
    threads = [threading.Thread(target=lambda: [load() for _ in range(10)]) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    model, missing = load()
    if missing:
        break
print(f"loaded after two threads have loaded at once: missing {missing}")
print(f"its output layer is its embeddings: {model.lm_head.weight is model.model.embed_tokens.weight}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

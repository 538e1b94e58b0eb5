#!/usr/bin/env bash
# peft 0.21.2 with transformers 5.23.0: a LoRA adapter of a Laguna model loads without its shared experts.
#
# The adapter adapts "all-linear" and is saved whole: 64 tensors. Loaded into the same base by PeftModel.from_pretrained,
# the adapters of every shared expert are new ones (B is 0), since the names in the file go through the conversion that
# Laguna's own checkpoints need. There is a warning of missing keys, no error, and the model answers otherwise than
# the one that was saved. The weights merged before saving are right.
#
# Output seen:
#   saved 64 tensors
#   not loaded: 18, all of shared experts: True
#   answers as saved: False
#   answers as saved once merged: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2
"$folder/venv/bin/python" - "$folder" > "$folder/seen" 2> "$folder/errors" <<'EOF' || { cat "$folder/errors"; exit 1; }
import copy
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LagunaConfig

FOLDER = Path(sys.argv[1])
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "pad_token_id": 0,
}


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 15)[None], use_cache=False).logits


torch.manual_seed(0)
base = AutoModelForCausalLM.from_config(LagunaConfig(**SHAPE)).eval()
lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
saved = get_peft_model(copy.deepcopy(base), lora).eval()
for name, weight in saved.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(weight, std=0.3)
saved.save_pretrained(FOLDER / "adapter")
print("saved", len(load_file(FOLDER / "adapter" / "adapter_model.safetensors")), "tensors")
loaded = PeftModel.from_pretrained(copy.deepcopy(base), FOLDER / "adapter").eval()
here = dict(loaded.named_parameters())
lost = [name for name, weight in saved.named_parameters() if "lora_" in name and not torch.equal(weight, here[name])]
print(f"not loaded: {len(lost)}, all of shared experts:", all("shared_expert" in name for name in lost))
answers = logits(saved)
print("answers as saved:", torch.allclose(logits(loaded), answers, atol=1e-4))
print("answers as saved once merged:", torch.allclose(logits(saved.merge_and_unload()), answers, atol=1e-4))
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

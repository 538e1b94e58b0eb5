#!/usr/bin/env bash
# peft 0.21.2 with transformers 5.23.0: an adapter on Jamba's dt_proj changes nothing until it is merged.
#
# Jamba's mixer multiplies by `dt_proj.weight` itself, so a LoRA layer around dt_proj is never called: with B far from 0
# the model answers as its base does, and no gradient reaches the adapter. merge_and_unload() then changes the answers.
# "all-linear" adapts dt_proj without a word (for Mamba and Falcon H1 peft refuses such modules by name). x_proj beside
# it, the control, answers the same before and after.
#
# Output seen:
#   dt_proj: changes the base: False, gradient: False, changes when merged: True
#   x_proj: changes the base: True, gradient: True, changes when merged: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2
"$folder/venv/bin/python" - > "$folder/seen" 2> "$folder/errors" <<'EOF' || { cat "$folder/errors"; exit 1; }
import copy

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, JambaConfig

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "num_experts": 1,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "use_mamba_kernels": False,
    "pad_token_id": 0,
}
torch.manual_seed(0)
base = AutoModelForCausalLM.from_config(JambaConfig(**SHAPE)).eval()
for weight in base.parameters():
    if weight.dim() > 1:
        torch.nn.init.normal_(weight, std=0.08)


def logits(model):
    return model(torch.arange(3, 15)[None], use_cache=False).logits


def far(a, b):
    return (a - b).abs().max().item() > 1e-3


for target in ("dt_proj", "x_proj"):
    tuned = get_peft_model(copy.deepcopy(base), LoraConfig(r=4, target_modules=[target], task_type="CAUSAL_LM")).eval()
    lora = [weight for name, weight in tuned.named_parameters() if "lora_B" in name]
    for weight in lora:
        torch.nn.init.normal_(weight, std=0.1)
    before = logits(tuned)
    if before.requires_grad:
        before.square().sum().backward()
    taught = any(weight.grad is not None for weight in lora)
    changes, merged = far(before, logits(base)), logits(tuned.merge_and_unload())
    print(f"{target}: changes the base: {changes}, gradient: {taught}, changes when merged: {far(merged, before)}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

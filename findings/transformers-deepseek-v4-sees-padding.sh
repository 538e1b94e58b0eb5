#!/usr/bin/env bash
# transformers 5.23.0: DeepSeek V4 answers otherwise when its prompt is padded on the left.
#
# Its compressed attention folds each block of 4 or 128 neighbours into one entry, counted from the first column of the
# batch, padding too, and the attention mask does not reach the blocks. So a prompt beside a longer one, with the mask and
# positions that generate() gives it, gets other log-probabilities than alone. Padding on the right is harmless; so is
# padding on the left for Qwen 3, the control. A batch of prompts has to be of one length for such a model.
#
# Output seen:
#   Qwen3 left same
#   Qwen3 right same
#   DeepseekV4 left differs
#   DeepseekV4 right same
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - > "$folder/seen" 2> "$folder/errors" <<'EOF' || { cat "$folder/errors"; exit 1; }
import torch
from transformers import AutoModelForCausalLM, DeepseekV4Config, Qwen3Config

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "head_dim": 16,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
CONFIGS = {
    "Qwen3": Qwen3Config(**SHAPE, intermediate_size=128, num_key_value_heads=2),
    "DeepseekV4": DeepseekV4Config(
        **SHAPE,
        moe_intermediate_size=32,
        n_routed_experts=4,
        num_experts_per_tok=2,
        q_lora_rank=16,
        o_lora_rank=16,
        o_groups=2,
        index_n_heads=2,
        index_head_dim=16,
        index_topk=4,
    ),
}
LENGTH, PADDED = 12, 20

for name, config in CONFIGS.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.08)
    ids = torch.arange(3, 3 + LENGTH)
    with torch.no_grad():
        alone = model(ids[None], use_cache=False).logits[0, -1].log_softmax(-1)
        for side, first in (("left", PADDED - LENGTH), ("right", 0)):
            batch, mask = torch.zeros(1, PADDED, dtype=torch.long), torch.zeros(1, PADDED, dtype=torch.long)
            batch[0, first : first + LENGTH], mask[0, first : first + LENGTH] = ids, 1
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            out = model(batch, attention_mask=mask, position_ids=positions, use_cache=False)
            there = out.logits[0, first + LENGTH - 1].log_softmax(-1)
            print(name, side, "differs" if (there - alone).abs().max() > 1e-3 else "same")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

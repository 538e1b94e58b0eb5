#!/usr/bin/env bash
# transformers 5.23.0: Mamba and Falcon Mamba forget their state when a text goes on by more than one token.
#
# A text of 16 tokens is read at once, and in pieces with the cache of the piece before. Single tokens after a prefix give
# the logits of the whole text. A second piece of 8 tokens is read as if the recurrent state were empty, without a word;
# Mamba 2, on the same torch code path without kernels, goes on rightly. A prompt whose beginning is shared must
# therefore be read whole for each of its continuations, or token by token.
#
# Output seen:
#   Mamba 8 + 1 x 8 same
#   Mamba 8 + 8 differs
#   FalconMamba 8 + 1 x 8 same
#   FalconMamba 8 + 8 differs
#   Mamba2 8 + 1 x 8 same
#   Mamba2 8 + 8 same
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - > "$folder/seen" 2> "$folder/errors" <<'EOF' || { cat "$folder/errors"; exit 1; }
import torch
from transformers import AutoModelForCausalLM, FalconMambaConfig, Mamba2Config, MambaConfig

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300, "state_size": 16, "pad_token_id": 0}
CONFIGS = {
    "Mamba": MambaConfig(**SHAPE),
    "FalconMamba": FalconMambaConfig(**SHAPE),
    "Mamba2": Mamba2Config(**SHAPE, num_heads=8, head_dim=16, n_groups=1),
}


def last(model, ids, sizes):
    kept, at = {}, 0
    for size in sizes:
        out = model(ids[:, at : at + size], use_cache=True, **kept)
        kept, at = {"cache_params": out.cache_params}, at + size
    return out.logits[0, -1].log_softmax(-1)


for name, config in CONFIGS.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.1)
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits[0, -1].log_softmax(-1)
        for told, sizes in (("8 + 1 x 8", [8] + [1] * 8), ("8 + 8", [8, 8])):
            far = (last(model, ids, sizes) - whole).abs().max() > 5e-5
            print(name, told, "differs" if far else "same")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

#!/usr/bin/env bash
# transformers 5.23.0 reads a GGUF file without its scaling of positions: a Llama 3.1 loads as a model with plain ones.
#
# llama.cpp's files of Llama 3.1 and later keep by what each frequency is divided as the tensor rope_freqs.weight, and linear
# scaling as rope.scaling.*. transformers knows neither (for gpt-oss alone it reads the keys): it skips the tensor, says
# nothing, and the model computes other logits than the one that was written. A plain file, the control, is the same.
#
# Output seen:
#   plain: rope_type default, same logits: True
#   llama3: rope_type default, same logits: False
#   linear: rope_type default, same logits: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
"$folder/venv/bin/python" - "$folder" > "$folder/seen" 2> "$folder/errors" <<'EOF' || { tail -20 "$folder/errors"; exit 1; }
import sys
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, GgufConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

SIZE, HEADS = 32, 2
SHAPE = {
    "vocab_size": 64,
    "hidden_size": SIZE,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "initializer_range": 0.3,
}
OF_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NAMES = {f"model.layers.0.{ours}.weight": f"blk.0.{theirs}.weight" for ours, theirs in OF_LAYER.items()}
NAMES |= {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
NAMES |= {"lm_head.weight": "output.weight"}
THETA = {"rope_theta": 10000.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
KINDS = {
    "plain": {"rope_type": "default", **THETA},
    "llama3": {"rope_type": "llama3", "factor": 8.0, **THETA, **LLAMA3},
    "linear": {"rope_type": "linear", "factor": 4.0, **THETA},
}


def in_pairs(weight):
    return weight.view(HEADS, 2, -1, SIZE).swapaxes(1, 2).reshape(SIZE, SIZE)


def write(file, model, kind):
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(64)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{i}" for i in range(64)])
    for name, weight in model.state_dict().items():
        weight = in_pairs(weight) if "q_proj" in name or "k_proj" in name else weight
        writer.add_tensor(NAMES[name], weight.numpy())
    if kind == "llama3":
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](model.config, torch.device("cpu"))
        plain = 10000.0 ** -(torch.arange(0, SIZE // HEADS, 2) / (SIZE // HEADS))
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy())
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


folder = Path(sys.argv[1])
tokens = torch.arange(3, 43)[None]
for kind, parameters in KINDS.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE, rope_parameters=parameters)).eval()
    write(folder / f"{kind}.gguf", model, kind)
    read = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=f"{kind}.gguf", quantization_config=GgufConfig(dequantize=True)
    )
    same = torch.allclose(model(tokens).logits, read(tokens).logits, atol=1e-4)
    print(f"{kind}: rope_type {read.config.rope_parameters['rope_type']}, same logits: {same}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

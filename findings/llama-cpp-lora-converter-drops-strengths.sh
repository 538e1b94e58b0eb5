#!/usr/bin/env bash
# llama.cpp's convert_lora_to_gguf.py (in llama-cpp-python 0.3.36) writes lora_alpha alone: rslora and alpha patterns go.
#
# PEFT multiplies a layer's product by alpha / sqrt(r) with use_rslora, and by the alpha of its pattern. llama.cpp multiplies by
# the file's one alpha over the rank. The converter neither refuses such adapters nor changes a matrix, so that they act with
# another strength than they were trained with: half of it here, and a fourth.
#
# Output seen:
#   plain: PEFT 2, GGUF 2
#   rslora: PEFT 4, GGUF 2
#   alpha_pattern: PEFT 8, GGUF 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2 gguf==0.19.0
"$folder/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: -d "$folder" llama-cpp-python==0.3.36
mkdir "$folder/source"
tar xzf "$folder"/llama_cpp_python-0.3.36.tar.gz -C "$folder/source" --strip-components 1
"$folder/venv/bin/python" - "$folder" > "$folder/seen" 2> "$folder/errors" <<'EOF' || { tail -20 "$folder/errors"; exit 1; }
import subprocess
import sys
from pathlib import Path

import torch
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

folder = Path(sys.argv[1])
base = folder / "base"
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0
)
AutoModelForCausalLM.from_config(config).save_pretrained(base)
cases = {"plain": {}, "rslora": {"use_rslora": True}, "alpha_pattern": {"alpha_pattern": {"up_proj": 32}}}
converter = folder / "source" / "vendor" / "llama.cpp" / "convert_lora_to_gguf.py"
for name, odd in cases.items():
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["up_proj"], **odd))
    layer = tuned.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    tuned.save_pretrained(folder / name)
    file = folder / f"{name}.gguf"
    command = [sys.executable, converter, "--base", base, "--outfile", file, folder / name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reader = GGUFReader(file)
    stored = next(each for each in reader.tensors if each.name.endswith("lora_b"))
    kept = load_file(folder / name / "adapter_model.safetensors")
    up = next(weight for key, weight in kept.items() if "lora_B" in key)
    factor = (torch.tensor(stored.data.astype("float32")) / up).mean().item()
    alpha = reader.fields["adapter.lora.alpha"].contents()
    print(f"{name}: PEFT {layer.scaling['default']:g}, GGUF {factor * alpha / up.shape[1]:g}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"

"""Writes a Llama model's weights as a GGUF file in f32, for llama.cpp. Runs in llama.cpp's own environment.

`python gguf_file.py MODEL_FOLDER FILE`: reads config.json and model.safetensors, and nothing of ours. The
vocabulary is made of names by number: tokens are handed over as ids, and no text is made.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
OF_LAYERS = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Returns every tensor in f32."""
    data = file.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {name: _array(body, **entry) for name, entry in header.items()}


def _array(body: bytes, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    raw = body[slice(*data_offsets)]
    if dtype == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    kinds = {"F32": np.float32, "F16": np.float16}
    return np.frombuffer(raw, kinds[dtype]).astype(np.float32).reshape(shape)


def in_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorders each head's outputs: llama.cpp rotates neighbours, the Hugging Face layout halves."""
    outputs, inputs = weight.shape
    return weight.reshape(heads, 2, outputs // heads // 2, inputs).swapaxes(1, 2).reshape(outputs, inputs)


def write(folder: Path, target: Path) -> None:
    """Writes the file."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(target), "llama")
    _add_config(writer, config)
    for name, weight in read_safetensors(folder / "model.safetensors").items():
        layer, of_layer = _layer_of(name)
        if layer is None:
            if not (name == "lm_head.weight" and config.get("tie_word_embeddings")):
                writer.add_tensor(NAMES[name], np.ascontiguousarray(weight))
            continue
        heads = {
            "self_attn.q_proj.weight": "num_attention_heads",
            "self_attn.k_proj.weight": "num_key_value_heads",
        }
        if of_layer in heads:
            weight = in_pairs(weight, config[heads[of_layer]])
        writer.add_tensor(f"blk.{layer}.{OF_LAYERS[of_layer]}", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _layer_of(name: str) -> tuple[int | None, str]:
    if not name.startswith("model.layers."):
        return None, name
    layer, of_layer = name.removeprefix("model.layers.").split(".", 1)
    return int(layer), of_layer


def _add_config(writer: Any, config: dict[str, Any]) -> None:
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)}
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    names = [f"token{i}".encode() for i in range(config["vocab_size"])]
    names[:3] = [b"<unk>", b"<s>", b"</s>"]
    writer.add_token_list(names)
    writer.add_token_scores([0.0] * len(names))
    writer.add_token_types([2, 3, 3, *[1] * (len(names) - 3)])


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))

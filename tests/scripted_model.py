"""A tiny model that writes a given text, piece by piece, after every prompt; built without any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.chat_templates import TEMPLATES
from tests.tiny_model import byte_tokenizer

MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Tokens of their own in Qwen3's tokenizer, and not special ones."""
END = "<|im_end|>"
HIDDEN = 64
"""The most pieces of a script, and the one before it."""
SHARPNESS = 10.0
"""Times eight it is the logit of the next piece; all others have 0, and are as good as never drawn."""


def qwen3_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer of bytes with the template and the marks of Qwen3."""
    tokenizer = byte_tokenizer(TEMPLATES["qwen3"])
    tokenizer.add_special_tokens({"eos_token": END, "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in MARKS])
    return tokenizer


def make_scripted_model(folder: Path, script: Sequence[str], *, context: int = 2048) -> Path:
    """Writes a model whose likeliest completion is the pieces of a script, and then its end.

    A token says which comes next: each piece has to be another text, and becomes a token if it is none.
    """
    assert len(set(script)) == len(script) < HIDDEN, "a token can have one successor"
    tokenizer = qwen3_tokenizer()
    known = {*tokenizer.get_added_vocab()}
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in script if piece not in known])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    ids = [*(tokenizer.convert_tokens_to_ids(piece) for piece in script), tokenizer.eos_token_id]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.zero_()
        embedding[:, 0] = 1.0
        head.zero_()
        for place, token in enumerate(ids):
            head[token, place] = SHARPNESS
            embedding[token] = torch.eye(HIDDEN)[place + 1]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

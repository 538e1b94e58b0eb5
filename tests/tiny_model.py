"""A tiny random causal model with a byte tokenizer and a chat template, built without any download."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BEGIN, END = "<pad>", "<begin>", "<end>"

CHAT_TEMPLATE = (
    "{% for m in messages %}<begin>{{ m['role'] }}:{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<begin>assistant:{% endif %}"
)


def byte_tokenizer(template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """One token for each byte, and `<begin>`, `<end>` and `<pad>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END, unk_token=None
    )
    fast.chat_template = template
    return fast


def make_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    context: int = 256,
    scale: float = 0.02,
    tokenizer: PreTrainedTokenizerFast | None = None,
    vocabulary: int | None = None,
) -> Path:
    """Write a Llama of about 30,000 parameters with grouped key/value heads; returns the folder.

    `scale` is the standard deviation of the random weights: larger ones make less uniform predictions.
    `vocabulary` counts its embedding rows, by default one for each token.
    """
    tokenizer = tokenizer or byte_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=scale,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
